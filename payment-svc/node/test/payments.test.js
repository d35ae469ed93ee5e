import assert from 'node:assert/strict';
import test from 'node:test';
import { createPayments, refusalOfStranger } from '../src/payments.js';

const SAGA = '019a0000-0000-7000-8000-000000000001';
const OTHER = '019a0000-0000-7000-8000-000000000002';
const ORDER = 'c0000000-0000-4000-8000-000000000003';
const code = (refusal) => refusal?.payload.code;

test('a payment is its saga\'s, and an order of order-svc the saga\'s that it names', () => {
  const check = (caller, orderId, expected) => {
    const payment = caller && { caller: `${caller}/charge/forward` };
    assert.equal(code(refusalOfStranger(payment, orderId, { sagaId: SAGA })), expected);
  };
  check(undefined, ORDER, undefined);
  check(SAGA, ORDER, undefined);
  check(OTHER, ORDER, 'order_of_another_saga');
  check(undefined, SAGA, undefined);
  check(undefined, SAGA.toUpperCase(), undefined);
  check(undefined, OTHER, 'order_of_another_saga');
});

test('a whole amount is charged however it is written, and no other', async () => {
  const { commands } = createPayments(undefined, undefined);
  const written = [];
  const tx = {
    query(sql, values) {
      if (sql.startsWith('INSERT')) written.push(values[2]);
      return { rows: [], rowCount: 1 };
    },
  };
  const charge = (amountMinor) => {
    const payload = JSON.parse(`{"orderId":"${ORDER}","customerId":"${ORDER}","currency":"EUR","amountMinor":${amountMinor}}`);
    return commands['payment.charge'](tx, { sagaId: SAGA, step: 'charge', direction: 'forward', payload });
  };
  for (const amount of ['100', '100.0', '1e2', '1000e-1']) assert.equal(await charge(amount), undefined, amount);
  assert.deepEqual(written, [100, 100, 100, 100]);
  for (const amount of ['100.5', '0', '-1', '"100"', 'null', '1000000000000001', '9007199254740993', '1e300']) {
    assert.equal(code(await charge(amount)), 'invalid_payload', amount);
  }
  assert.equal(written.length, 4);
});
