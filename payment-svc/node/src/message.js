// The wire contract: parses a Kafka record into a command, and encodes an answer as a record. Values are JSON; all other
// fields are headers (the CloudEvents Kafka binding, and the saga's own). See saga-core/PARTICIPANTS.md.

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
const DIRECTIONS = ['forward', 'compensation', 'resolve'];
const STEP_LIMIT_BYTES = 200;
const TYPE_LIMIT_BYTES = 1_024;
const CORRELATION_LIMIT = 200;
const TRACEPARENT_LIMIT = 200;
const DEPTH_LIMIT = 64;
/** The maximum length of a fault's code and message, which may quote a handler's input. */
const FAULT_TEXT_LIMIT = 4_096;
/**
 * The source of all replies. It names the participant and not the process, so that the same answer has the same id and
 * source in every process.
 */
const SOURCE = '/payment';

/**
 * A record that cannot be handled. It is sent to the dead-letter topic with `reason`, and the partition continues. If
 * `command` is set, the command is answered with an error.
 */
export class Undecodable extends Error {
  constructor(reason, message, command) {
    super(message);
    this.reason = reason;
    this.command = command;
  }
}

/** Parses a record of the command topic; throws Undecodable. */
export function readCommand(record, replyTopics) {
  const text = (name) => {
    // kafkajs returns an array if a header occurs twice; the last value counts.
    const value = [record.headers?.[name]].flat().at(-1);
    return value === undefined || value === null ? undefined : value.toString('utf8');
  };
  const required = (name) => {
    const value = text(name);
    if (!value) throw new Undecodable('missing_header', `header ${name} is missing`);
    return value;
  };
  const checked = (name, valid) => {
    const value = required(name);
    if (!valid(value)) throw new Undecodable('bad_header', `header ${name} is not valid: ${value}`);
    return value;
  };
  const whole = (value) => /^\d{1,9}$/.test(value);
  const short = (limit) => (value) => Buffer.byteLength(value) <= limit && !value.includes('\0');
  const correlationId = (text('correlation-id') ?? '').slice(0, CORRELATION_LIMIT);
  if (correlationId.includes('\0')) throw new Undecodable('bad_header', 'header correlation-id contains NUL');
  const command = {
    sagaId: checked('saga-id', (id) => UUID_V7.test(id)).toLowerCase(),
    step: checked('saga-step', short(STEP_LIMIT_BYTES)),
    direction: checked('saga-direction', (direction) => DIRECTIONS.includes(direction)),
    attempt: Number(checked('saga-attempt', whole)),
    type: checked('ce_type', short(TYPE_LIMIT_BYTES)),
    // True if a failure of this command is final. The orchestrator decides this by the kind of the step.
    saveFailure: text('save-failure') === 'true',
    replyTo: {
      topic: checked('reply-topic', (topic) => replyTopics.includes(topic)),
      partition: Number(checked('reply-partition', whole)),
    },
    floorMs: text('saga-floor') ? Number(checked('saga-floor', (ms) => /^\d{1,15}$/.test(ms))) : undefined,
    correlationId,
    traceparent: text('traceparent')?.length <= TRACEPARENT_LIMIT ? text('traceparent') : undefined,
  };
  if (!record.value) throw new Undecodable('no_payload', 'the value is missing');
  const json = record.value.toString('utf8');
  try {
    command.payload = JSON.parse(json);
  } catch (error) {
    throw new Undecodable('bad_payload', `the value is not JSON: ${error.message}`);
  }
  const tooLong = integerOutOfRange(json);
  if (tooLong) {
    const message = `${tooLong} is an integer that would come out of here as another one`;
    throw new Undecodable('number_out_of_range', message);
  }
  checkValue(command.payload, command, 0);
  return command;
}

/**
 * Returns the first integer of a JSON text that does not fit into 64 bits. Numbers with a fraction or an exponent are
 * floating-point and are skipped.
 */
function integerOutOfRange(json) {
  const [least, most] = [-(2n ** 63n), 2n ** 64n - 1n];
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g)) {
    if (!/^-?\d{19,}$/.test(token)) continue;
    if (BigInt(token) < least || BigInt(token) > most) return token.slice(0, 40);
  }
  return undefined;
}

/** Refuses values that Postgres cannot store, before a transaction fails because of them. */
function checkValue(value, command, depth) {
  const refuse = (reason, message) => { throw new Undecodable(reason, message, command); };
  if (depth > DEPTH_LIMIT) refuse('too_deep', `the value is nested deeper than ${DEPTH_LIMIT}`);
  const nul = (text) => text.includes('\0') && refuse('nul_character', 'a string contains NUL, which no database here keeps');
  if (typeof value === 'string') nul(value);
  if (typeof value !== 'object' || value === null) return;
  if (!Array.isArray(value)) Object.keys(value).forEach(nul);
  for (const each of Object.values(value)) checkValue(each, command, depth + 1);
}

/** Returns the time at which a saga began, in milliseconds since 1970, from its UUIDv7. */
export function beganAt(sagaId) {
  return Number.parseInt(sagaId.replaceAll('-', '').slice(0, 12), 16);
}

/** Returns the lowest possible id of a saga that began at `ms`. */
export function lowestId(ms) {
  const hex = Math.floor(ms).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-0000-0000-000000000000`;
}

/** Returns the command's type without `.resolve`. */
export function forwardType(command) {
  return command.direction === 'resolve' ? command.type.replace(/\.resolve$/, '') : command.type;
}

// The stored form of a command with an open call, for the process that claims the call.

export const storedCommand = (command) => ({
  saga_id: command.sagaId,
  step: command.step,
  direction: command.direction,
  attempt: command.attempt,
  command_type: command.type,
  payload: command.payload,
  save_failure: command.saveFailure,
  reply_to: command.replyTo,
  floor: command.floorMs === undefined ? null : new Date(command.floorMs).toISOString(),
  trace: traceOf(command),
});

export const commandOf = (stored) => ({
  sagaId: stored.saga_id,
  step: stored.step,
  direction: stored.direction,
  attempt: stored.attempt,
  type: stored.command_type,
  payload: stored.payload,
  saveFailure: stored.save_failure,
  replyTo: stored.reply_to,
  floorMs: stored.floor ? Date.parse(stored.floor) : undefined,
  correlationId: stored.trace.correlation_id,
  traceparent: stored.trace.traceparent,
});

function traceOf({ correlationId, traceparent }) {
  return traceparent === undefined ? { correlation_id: correlationId } : { correlation_id: correlationId, traceparent };
}

// A handler's answer, { type, outcome, payload }. The barrier saves only these. The attempt, the trace and the reply
// topic always come from the command that is answered.

const short = (text) => text.slice(0, FAULT_TEXT_LIMIT);
export const success = (type, payload) => ({ type, outcome: 'success', payload });
export const failure = (type, code, message) => ({
  type,
  outcome: 'failure',
  payload: { code: short(code), message: short(message) },
});
export const error = (command, code, message) => ({ ...failure(`${command.type}.error`, code, message), outcome: 'error' });
export const notDone = (command) => ({ type: `${forwardType(command)}.not_done`, outcome: 'not_done', payload: {} });

/**
 * Returns `answer` with its destination, as it is stored until it is acknowledged. `at` is the time of the decision,
 * which is the same in every copy. `direction` differs from the command's own if a resolve gets the action's answer.
 */
export function reply(command, answer, at, direction = command.direction) {
  return {
    reply: {
      saga_id: command.sagaId,
      step: command.step,
      direction,
      attempt: command.attempt,
      reply_type: answer.type,
      outcome: answer.outcome,
      payload: answer.payload,
      trace: traceOf(command),
    },
    reply_to: command.replyTo,
    at: at.toISOString(),
  };
}

/** Returns the record that carries a reply to the orchestrator. */
export function replyRecord({ reply: answer, reply_to: to, at }) {
  // The same answer has the same id, however often it is sent. Each attempt may have its own error.
  const id = `${answer.saga_id}/${answer.step}/${answer.direction}/${answer.outcome}`;
  const headers = {
    ce_specversion: '1.0',
    ce_id: answer.outcome === 'error' ? `${id}/${answer.attempt}` : id,
    ce_type: answer.reply_type,
    ce_source: SOURCE,
    ce_time: new Date(at).toISOString(),
    'content-type': 'application/json',
    'saga-id': answer.saga_id,
    'saga-step': answer.step,
    'saga-direction': answer.direction,
    'saga-attempt': String(answer.attempt),
    'saga-outcome': answer.outcome,
    'correlation-id': answer.trace.correlation_id,
  };
  if (answer.trace.traceparent) headers.traceparent = answer.trace.traceparent;
  return { topic: to.topic, partition: to.partition, key: answer.saga_id, headers, value: JSON.stringify(answer.payload) };
}

/**
 * Returns the dead letter of `record`: the unchanged record and the reason, so that a person can inspect, correct and
 * replay it.
 */
export function deadLetter(topic, partition, record, reason, detail) {
  const headers = { ...record.headers };
  Object.assign(headers, {
    'dead-letter-reason': reason,
    'dead-letter-detail': detail.slice(0, 500),
    'dead-letter-topic': topic,
    'dead-letter-partition': String(partition),
    'dead-letter-offset': record.offset,
    'dead-letter-time': new Date(Number(record.timestamp)).toISOString(),
  });
  return { topic: `${topic}.dlq`, key: record.key, headers, value: record.value };
}
