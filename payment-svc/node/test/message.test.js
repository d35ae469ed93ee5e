import assert from 'node:assert/strict';
import test from 'node:test';
import {
  Undecodable,
  beganAt,
  commandOf,
  deadLetter,
  error,
  lowestId,
  notDone,
  readCommand,
  reply,
  replyRecord,
  storedCommand,
  success,
} from '../src/message.js';
import { blame, bySaga } from '../src/participant.js';

const SAGA = '019a0000-0000-7000-8000-000000000001';
const AT = new Date(0);

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
  const sent = replyRecord(reply(command, success('payment.success', { ok: true }), AT));
  assert.equal(sent.topic, 'saga.inputs');
  assert.equal(sent.partition, 3);
  assert.equal(sent.key, SAGA);
  assert.equal(sent.headers.ce_id, `${SAGA}/charge-payment/forward/success`);
  assert.equal(sent.headers['saga-attempt'], '2');
  assert.equal(sent.headers['correlation-id'], 'wär-ich-🦉');
  assert.ok(!('traceparent' in sent.headers));
});

test('the same answer has the same id, and each attempt an error of its own', () => {
  const command = read();
  const later = { ...command, attempt: 3 };
  const id = (about, answer) => replyRecord(reply(about, answer, AT)).headers.ce_id;
  assert.equal(id(command, success('t', {})), id(later, success('t', {})));
  assert.notEqual(id(command, error(command, 'c', 'm')), id(later, error(later, 'c', 'm')));
  const resolve = read({ 'saga-direction': 'resolve', ce_type: 'payment.charge.resolve' });
  assert.equal(replyRecord(reply(resolve, notDone(resolve), AT)).headers.ce_type, 'payment.charge.not_done');
});

test('a record that cannot be read says why', () => {
  const check = (changes, value, reason) =>
    assert.throws(() => read(changes, value), (failed) => failed instanceof Undecodable && failed.reason === reason);
  check({ 'saga-step': undefined }, '{}', 'missing_header');
  check({ 'saga-id': '0195d2c0-0000-4000-8000-000000000001' }, '{}', 'bad_header');
  check({ 'saga-direction': 'sideways' }, '{}', 'bad_header');
  check({ 'saga-attempt': '-1' }, '{}', 'bad_header');
  check({ 'saga-floor': 'long ago' }, '{}', 'bad_header');
  check({ 'reply-topic': 'elsewhere' }, '{}', 'bad_header');
  check({}, null, 'no_payload');
  check({}, '{', 'bad_payload');
  check({}, '{"amountMinor":123456789012345678901234}', 'number_out_of_range');
  check({}, '{"a":["\\u0000"]}', 'nul_character');
  check({}, `${'['.repeat(66)}1${']'.repeat(66)}`, 'too_deep');
});

test('numbers in texts, and those that 64 bits hold, are nothing to refuse', () => {
  for (const value of ['{"a":"123456789012345678901234"}', '{"a":18446744073709551615}', '{"a":1e300,"b":"\\"1"}']) {
    assert.ok(read({}, value), value);
  }
});

test('a command that is kept is read as it was, by this participant and by the one in Rust', () => {
  const command = read({ traceparent: '00-a-b-01' });
  assert.deepEqual(commandOf(JSON.parse(JSON.stringify(storedCommand(command)))), command);
  assert.deepEqual(storedCommand(command), {
    saga_id: SAGA,
    step: 'charge-payment',
    direction: 'forward',
    attempt: 2,
    command_type: 'payment.charge',
    payload: { orderId: 'x' },
    save_failure: true,
    reply_to: { topic: 'saga.inputs', partition: 3 },
    floor: '1970-01-01T00:00:01.000Z',
    trace: { correlation_id: 'wär-ich-🦉', traceparent: '00-a-b-01' },
  });
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
  // The error of a missing partition has no constraint name; a violated constraint has one.
  assert.equal(blame(Object.assign(new Error('no partition'), { code: '23514' })), undefined);
  assert.equal(blame(Object.assign(new Error('check'), { code: '23514', constraint: 'c' })), 'data_error');
});

test('records of one saga keep their order, and those of others do not wait for them', async () => {
  const records = ['a', 'b', 'a', 'c', 'a'].map((key, offset) => ({ key: Buffer.from(key), offset }));
  const began = [];
  let open;
  const gate = new Promise((resolve) => (open = resolve));
  const outputs = await bySaga(records, async ({ key, offset }) => {
    began.push(offset);
    if (offset === 3) open();
    if (String(key) === 'a') await gate;
    return offset * 10;
  });
  assert.deepEqual(outputs, [0, 10, 20, 30, 40]);
  assert.deepEqual(began.filter((offset) => offset % 2 === 0), [0, 2, 4]);
  await assert.rejects(bySaga(records, async ({ offset }) => { if (offset === 1) throw new Error('away'); }), /away/);
});
