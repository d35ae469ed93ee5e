import assert from 'node:assert/strict';
import test from 'node:test';
import { migrationLock } from '../src/database.js';
import { missing } from '../src/upkeep.js';

const DAY = 24 * 60 * 60 * 1000;
const days = (...spans) => spans.map(([from, to]) => [from === null ? null : from * DAY, to * DAY]);
const NOON = 100.5 * DAY;

test('a new table reaches back to the beginning, or to the floor, and seven days ahead of today', () => {
  const each = Array.from({ length: 10 }, (_, index) => [98 + index, 99 + index]);
  assert.deepEqual(missing([], NOON, 0), days([null, 98], ...each));
  assert.deepEqual(missing([], NOON, 70 * DAY), days([70, 98], ...each));
});

test('what stands is continued without a gap', () => {
  assert.deepEqual(missing([108 * DAY], NOON, 0), []);
  assert.deepEqual(missing([98 * DAY, 107 * DAY], NOON, 0), days([107, 108]));
  assert.deepEqual(missing([106 * DAY + 1], NOON, 0), [[106 * DAY + 1, 107 * DAY], [107 * DAY, 108 * DAY]]);
});

test('whoever migrates takes the lock that payment-svc takes', () => {
  // CRC-32 of "123456789" is cbf43926.
  assert.equal(migrationLock('123456789'), String(0x3d32ad9en * 0xcbf43926n));
});
