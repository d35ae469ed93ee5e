// The table of the contract, row by row: F and C are what the step's row says, then what each direction comes to.

import assert from 'node:assert/strict';
import test from 'node:test';
import { admit } from '../src/barrier.js';

const TABLE = [
  // F, C, action, compensation, resolve
  [null, null, 'run', 'refuse and compensate empty', 'refuse'],
  [null, 'done', 'refuse', 'saved compensation', 'refuse'],
  ['pending', null, 'call forward', 'call forward', 'call forward'],
  ['done', null, 'saved forward', 'run', 'saved forward'],
  ['done', 'pending', 'saved forward', 'call compensation', 'saved forward'],
  ['done', 'done', 'saved forward', 'saved compensation', 'saved forward'],
  ['failed', null, 'saved forward', 'compensate empty', 'saved forward'],
  ['failed', 'done', 'saved forward', 'saved compensation', 'saved forward'],
  ['refused', null, 'not done', 'compensate empty', 'not done'],
  ['refused', 'done', 'not done', 'saved compensation', 'not done'],
];

test('every row of the table holds', () => {
  for (const [forward, compensation, ...expected] of TABLE) {
    const found = ['forward', 'compensation', 'resolve'].map((direction) => admit(forward, compensation, direction));
    assert.deepEqual(found, expected, `F ${forward}, C ${compensation}`);
  }
});
