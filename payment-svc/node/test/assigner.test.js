import assert from 'node:assert/strict';
import test from 'node:test';
import kafkajs from 'kafkajs';
import { cooperativeSticky, ownedBy, plan } from '../src/assigner.js';

const TOPIC = 'payment.commands';
const of = (...numbers) => numbers.map((partition) => ({ topic: TOPIC, partition }));
const member = (memberId, ...owned) => ({ memberId, owned: of(...owned) });

function check(members, partitions, expected) {
  const given = plan(members, of(...Array(partitions).keys()));
  const found = Object.fromEntries(given.map((one) => [one.memberId, one.given.map(({ partition }) => partition).sort()]));
  assert.deepEqual(found, expected);
}

test('the first member gets everything, and those that come together share', () => {
  check([member('a')], 3, { a: [0, 1, 2] });
  check([member('a'), member('b')], 4, { a: [0, 1], b: [2, 3] });
  check([member('a'), member('b')], 1, { a: [0], b: [] });
});

test('a partition changes hands only after its owner has let go of it', () => {
  check([member('a', 0, 1, 2, 3), member('b')], 4, { a: [0, 1], b: [] });
  check([member('a', 0, 1), member('b')], 4, { a: [0, 1], b: [2, 3] });
});

test('whoever owns no more than a share keeps it', () => {
  check([member('a', 3), member('b', 0, 2), member('c')], 4, { a: [3], b: [0, 2], c: [1] });
  check([member('a'), member('b', 0, 1, 2)], 5, { a: [3, 4], b: [0, 1, 2] });
});

test('what two members claim is nobody\'s until both have let go', () => {
  check([member('a', 0, 1), member('b', 1)], 2, { a: [0], b: [] });
});

test('what does not exist any more is not given away', () => {
  check([member('a', 0, 7)], 2, { a: [0, 1] });
});

test('any order of joining ends with every partition owned once, in equal shares', () => {
  for (const partitions of [1, 2, 5, 8]) {
    for (const count of [1, 2, 3, 7]) {
      let members = [member('m0')];
      for (let joined = 1; joined <= count; joined += 1) {
        // Repeats until no member has to revoke a partition.
        for (let round = 0; round < 3; round += 1) {
          const given = plan(members, of(...Array(partitions).keys()));
          members = given.map(({ memberId, given: owned }) => ({ memberId, owned }));
        }
        const all = members.flatMap(({ owned }) => owned.map(({ partition }) => partition));
        assert.deepEqual(all.sort(), [...Array(partitions).keys()]);
        const sizes = members.map(({ owned }) => owned.length);
        assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 1);
        if (joined < count) members.push(member(`m${joined}`));
      }
    }
  }
});

test('what librdkafka writes about a member is read, and what we write is what it reads', () => {
  // Version 3, one topic, no user data, partitions 1 and 2 of it owned, generation, no rack.
  const written = Buffer.from(
    `0003 00000001 0010 ${Buffer.from(TOPIC).toString('hex')} 00000000 00000001 0010 ${Buffer.from(TOPIC).toString('hex')}
     00000002 00000001 00000002 ffffffff ffff`.replaceAll(/\s/g, ''),
    'hex',
  );
  assert.deepEqual(ownedBy(written), of(1, 2));
  assert.deepEqual(ownedBy(kafkajs.AssignerProtocol.MemberMetadata.encode({ version: 0, topics: [TOPIC] })), []);
  const { name, metadata } = cooperativeSticky({}).protocol({ topics: [TOPIC] });
  assert.equal(name, 'cooperative-sticky');
  assert.deepEqual(ownedBy(metadata), []);
  assert.equal(metadata.readInt16BE(0), 1);
});
