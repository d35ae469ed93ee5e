import assert from 'node:assert/strict';
import test from 'node:test';
import { GroupDatabase, Stranger, markOf } from '../src/group_database.js';

const OURS = '6b0c7a5e-0000-4000-8000-000000000001';
const THEIRS = '6b0c7a5e-0000-4000-8000-000000000002';

test('a mark is read among other words, and foreign metadata is none', () => {
  assert.deepEqual(markOf(`db=${OURS} tick=17 topic=iOPCk0_ERyCo9dq3mpWXSg`), { database: OURS, tick: 17 });
  assert.deepEqual(markOf(`host=a db=${OURS.toUpperCase()}`), { database: OURS, tick: 0 });
  for (const none of [undefined, null, '', 'db=', 'AQAAAZ']) assert.equal(markOf(none), undefined);
});

/** Returns a group whose offsets carry `metadata`, by partition. It answers as Kafka does. */
function group(...metadata) {
  const marks = metadata.map((text, partition) => ({ partition, offset: '-1', metadata: text }));
  const pool = { query: async () => ({ rows: [{ id: OURS, ticks: '5' }] }) };
  const admin = { fetchOffsets: async () => [{ partitions: marks }] };
  return { marks, open: () => GroupDatabase.open(pool, admin, 'g', 't') };
}

test('a group of another database is refused, and both are named', async () => {
  const named = (failed) => failed instanceof Stranger && failed.message.includes(OURS) && failed.message.includes(THEIRS);
  await assert.rejects(group(`db=${OURS}`, `db=${THEIRS}`).open(), named);
  await group(`db=${OURS} tick=5`, null).open();
});

test('a database that is older than its group\'s offsets is refused', async () => {
  await assert.rejects(group(`db=${OURS} tick=6`).open(), /restored from a backup/);
});

test('whoever has a partition without a mark claims it, but partition 0 comes first', async () => {
  const found = group(null, null);
  const database = await found.open();
  const claimed = [];
  const commit = async (partition, offset) => {
    claimed.push([partition, offset]);
    found.marks[partition].metadata = database.mark();
  };
  database.assigned([1]);
  const waiting = database.claim(commit);
  // Another member with the same database has claimed partition 0.
  found.marks[0].metadata = `db=${OURS} tick=1`;
  await waiting;
  assert.deepEqual(claimed, [[1, '0']]);
  // A waiting member that is assigned other partitions meanwhile waits for those.
  found.marks[0].metadata = null;
  database.assigned([1]);
  const other = database.claim(commit);
  database.assigned([0]);
  await other;
  assert.deepEqual(claimed.at(-1), [0, '0']);
  database.assigned([0]);
  found.marks[0].metadata = `db=${THEIRS}`;
  await assert.rejects(database.claim(commit), Stranger);
});
