import assert from 'node:assert/strict';
import test from 'node:test';
import { Undecodable, beganAt, deadLetter, error, lowestId, notDone, readCommand, replyRecord, success } from '../src/message.js';
import { blame } from '../src/participant.js';

const SAGA = '019a0000-0000-7000-8000-000000000001';

function record(changes = {}, value = '{"orderId":"x"}') {
  const headers = {
    ce_type: 'payment.charge',
    'saga-id': SAGA,
    'saga-step': 'charge-payment',
    'saga-direction': 'forward',
    'saga-attempt': '2',
    'save-failure': 'true',
    'saga-floor': '1000',
    'reply-topic': 'saga.inputs',
    'reply-partition': '3',
    'correlation-id': 'wär-ich-🦉',
    ...changes,
  };
  const bytes = Object.entries(headers).map(([name, text]) => [name, text && Buffer.from(text)]);
  return { key: Buffer.from(SAGA), offset: '7', timestamp: '1700000000000', headers: Object.fromEntries(bytes), value: value && Buffer.from(value) };
}

const read = (changes, value) => readCommand(record(changes, value), ['saga.inputs']);

test('a command is read and its answer echoes what it came with', () => {
  const command = read();
  const reply = replyRecord(command, success('payment.success', { ok: true }));
  assert.equal(reply.topic, 'saga.inputs');
  assert.equal(reply.partition, 3);
  assert.equal(reply.key, SAGA);
  assert.equal(reply.headers.ce_id, `${SAGA}/charge-payment/forward/success`);
  assert.equal(reply.headers['saga-attempt'], '2');
  assert.equal(reply.headers['correlation-id'], 'wär-ich-🦉');
  assert.ok(!('traceparent' in reply.headers));
});

test('the same answer has the same id, and each attempt an error of its own', () => {
  const command = read();
  const later = { ...command, attempt: 3 };
  const id = (about, answer) => replyRecord(about, answer).headers.ce_id;
  assert.equal(id(command, success('t', {})), id(later, success('t', {})));
  assert.notEqual(id(command, error(command, 'c', 'm')), id(later, error(later, 'c', 'm')));
  const resolve = read({ 'saga-direction': 'resolve', ce_type: 'payment.charge.resolve' });
  assert.equal(replyRecord(resolve, notDone(resolve)).headers.ce_type, 'payment.charge.not_done');
});

test('a record that cannot be read says why', () => {
  const check = (changes, value, reason) =>
    assert.throws(() => read(changes, value), (failed) => failed instanceof Undecodable && failed.reason === reason);
  check({ 'saga-step': undefined }, '{}', 'missing_header');
  check({ 'saga-id': '0195d2c0-0000-4000-8000-000000000001' }, '{}', 'bad_header');
  check({ 'saga-id': 'ffffffff-ffff-7fff-8fff-ffffffffffff' }, '{}', 'bad_header');
  check({ 'saga-direction': 'sideways' }, '{}', 'bad_header');
  check({ 'saga-attempt': '-1' }, '{}', 'bad_header');
  check({ 'saga-floor': 'long ago' }, '{}', 'bad_header');
  check({ 'reply-topic': 'elsewhere' }, '{}', 'bad_header');
  check({}, null, 'no_payload');
  check({}, '{', 'bad_payload');
});

test('a dead letter keeps the record and says where it stood', () => {
  const letter = deadLetter('payment.commands', 1, record({}, null), 'no_payload', 'why');
  assert.equal(letter.topic, 'payment.commands.dlq');
  assert.equal(letter.value, null);
  assert.equal(letter.headers['saga-step'].toString(), 'charge-payment');
  assert.equal(letter.headers['dead-letter-offset'], '7');
});

test('the floor cuts between ids as it does between times', () => {
  assert.equal(beganAt(SAGA), 0x019a00000000);
  assert.ok(lowestId(beganAt(SAGA)) <= SAGA && SAGA < lowestId(beganAt(SAGA) + 1));
});

test('a record is blamed for its data and for bugs, never for a database that is away', () => {
  assert.equal(blame(Object.assign(new Error('too long'), { code: '22001' })), 'data_error');
  assert.equal(blame(new TypeError('x is undefined')), 'handler_broken');
  assert.equal(blame(Object.assign(new Error('refused'), { code: 'ECONNREFUSED' })), undefined);
  assert.equal(blame(Object.assign(new Error('deadlock'), { code: '40P01' })), undefined);
  assert.equal(blame(new Error('Connection terminated unexpectedly')), undefined);
});
