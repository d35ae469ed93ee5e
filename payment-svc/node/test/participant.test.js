import assert from 'node:assert/strict';
import test from 'node:test';
import { byKey, send } from '../src/participant.js';

/** Returns a producer for a topic that takes at most `limit` bytes in a request, and what the topic has taken. */
function limitedTo(limit) {
  const taken = [];
  const producer = {
    async send({ messages }) {
      const bytes = messages.reduce((sum, { value }) => sum + value.length, 0);
      // kafkajs wraps the broker's answer once it has given up.
      if (bytes > limit) throw Object.assign(new Error('given up'), { cause: { type: 'MESSAGE_TOO_LARGE' } });
      taken.push(messages.map(({ value }) => value));
    },
  };
  return { producer, taken };
}

const messages = (...values) => values.map((value) => ({ key: 'k', value }));

test('records that fit are sent one by one if their batch does not fit', async () => {
  const { producer, taken } = limitedTo(5);
  await send(producer, 't', messages('aa', 'bb'));
  await send(producer, 't', messages('ccc', 'ddd', 'eee'));
  assert.deepEqual(taken, [['aa', 'bb'], ['ccc'], ['ddd'], ['eee']]);
});

test('a record that does not fit alone is not tried again, and the setting is named', async () => {
  const { producer, taken } = limitedTo(5);
  const sending = send(producer, 'saga.inputs', messages('aaa', 'bbbbbb', 'ccc'));
  await assert.rejects(sending, (failed) =>
    /topic saga\.inputs refuses a record with 6 bytes: raise its max\.message\.bytes/.test(failed.message) && !failed.retriable);
  assert.deepEqual(taken, [['aaa']]);
});

test('any other failure is the same for one record as for many', async () => {
  const producer = { sent: 0, async send() { this.sent += 1; throw new Error('away'); } };
  await assert.rejects(send(producer, 't', messages('a', 'b')), /away/);
  assert.equal(producer.sent, 1);
});

// The vectors of Kafka's own `UtilsTest.testMurmur2`, which the Rust services are tested with as well.
const MURMUR2 = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
];

test('a key takes the partition that it takes in Java and in Rust', () => {
  const partitioner = byKey();
  for (const [key, hash] of MURMUR2) {
    for (const count of [1, 2, 7, 12]) {
      const partitionMetadata = Array.from({ length: count }, (_, partitionId) => ({ partitionId, leader: 0 }));
      const partition = partitioner({ topic: 't', partitionMetadata, message: { key } });
      assert.equal(partition, (hash & 0x7fffffff) % count, `${key} of ${count}`);
    }
  }
  assert.equal(partitioner({ topic: 't', partitionMetadata: [], message: { key: 'abc', partition: 3 } }), 3);
});
