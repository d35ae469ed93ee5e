// Tests the table of the contract, row by row: F and C are the marks of the step's rows; then follows the decision for
// each direction.

import assert from 'node:assert/strict';
import test from 'node:test';
import { admit } from '../src/barrier.js';

const TABLE = [
  // F, C, action, compensation, resolve
  [undefined, undefined, 'run', 'refuse and compensate empty', 'refuse'],
  [undefined, 'done', 'refuse', 'saved compensation', 'refuse'],
  ['pending', undefined, 'wait', 'wait', 'wait'],
  ['done', undefined, 'saved forward', 'run', 'saved forward'],
  ['done', 'pending', 'saved forward', 'wait', 'saved forward'],
  ['done', 'done', 'saved forward', 'saved compensation', 'saved forward'],
  ['failed', undefined, 'saved forward', 'compensate empty', 'saved forward'],
  ['failed', 'done', 'saved forward', 'saved compensation', 'saved forward'],
  ['refused', undefined, 'not done', 'compensate empty', 'not done'],
  ['refused', 'done', 'not done', 'saved compensation', 'not done'],
];

test('every row of the table holds', () => {
  for (const [forward, compensation, ...expected] of TABLE) {
    const found = ['forward', 'compensation', 'resolve'].map((direction) => admit(forward, compensation, direction));
    assert.deepEqual(found, expected, `F ${forward}, C ${compensation}`);
  }
});
