// The wire contract: a Kafka record becomes a command, an answer becomes a record. Values are JSON; everything else
// travels as headers (the CloudEvents Kafka binding, and the saga's own). See saga-core/PARTICIPANTS.md.

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/i;
const DIRECTIONS = ['forward', 'compensation', 'resolve'];
const STEP_LIMIT = 200;
/** Clocks disagree by minutes; an id from further in the future is a mistake. */
const AHEAD_LIMIT_MS = 24 * 60 * 60 * 1000;

/** A record that can have no effect. It goes to the dead-letter topic with `reason`, and the partition goes on. */
export class Undecodable extends Error {
  constructor(reason, message) {
    super(message);
    this.reason = reason;
  }
}

/** Reads a record of the command topic; throws Undecodable. */
export function readCommand(record, replyTopics) {
  const text = (name) => {
    // kafkajs gives an array where a header stands twice; the last one counts.
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
  const command = {
    sagaId: checked('saga-id', (id) => UUID_V7.test(id) && beganAt(id) < Date.now() + AHEAD_LIMIT_MS).toLowerCase(),
    step: checked('saga-step', (step) => step.length <= STEP_LIMIT && !step.includes('\0')),
    direction: checked('saga-direction', (direction) => DIRECTIONS.includes(direction)),
    attempt: Number(checked('saga-attempt', whole)),
    type: required('ce_type'),
    // Whether a failure of this command is final. The orchestrator knows, because it knows the kind of the step.
    saveFailure: text('save-failure') === 'true',
    replyTopic: checked('reply-topic', (topic) => replyTopics.includes(topic)),
    replyPartition: Number(checked('reply-partition', whole)),
    floorMs: text('saga-floor') ? Number(checked('saga-floor', (ms) => /^\d{1,15}$/.test(ms))) : 0,
    correlationId: text('correlation-id') ?? '',
    traceparent: text('traceparent'),
  };
  if (!record.value) throw new Undecodable('no_payload', 'the value is missing');
  try {
    command.payload = JSON.parse(record.value.toString('utf8'));
  } catch (error) {
    throw new Undecodable('bad_payload', `the value is not JSON: ${error.message}`);
  }
  return command;
}

/** Milliseconds since 1970 at which a saga began: a UUIDv7 says it. */
export function beganAt(sagaId) {
  return Number.parseInt(sagaId.replaceAll('-', '').slice(0, 12), 16);
}

/** The lowest id that a saga can have that began at `ms`. */
export function lowestId(ms) {
  const hex = Math.floor(ms).toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-0000-0000-000000000000`;
}

/** The command's type without `.resolve`. */
export function forwardType(command) {
  return command.direction === 'resolve' ? command.type.replace(/\.resolve$/, '') : command.type;
}

// Answers: { type, outcome, payload, at }, and `direction` where it is not the command's own. That much is saved with
// the barrier; the attempt, the trace and the address always come from the command that is being answered.

export const success = (type, payload) => ({ type, outcome: 'success', payload, at: new Date().toISOString() });
export const failure = (type, code, message) => ({ ...success(type, { code, message }), outcome: 'failure' });
export const error = (command, code, message) => ({ ...failure(`${command.type}.error`, code, message), outcome: 'error' });
export const notDone = (command) => ({ ...success(`${forwardType(command)}.not_done`, {}), outcome: 'not_done' });

/** The record that carries `answer` to the orchestrator. */
export function replyRecord(command, answer) {
  const direction = answer.direction ?? command.direction;
  // The same answer has the same id, however often it is sent. Each attempt may have an error of its own.
  const id = `${command.sagaId}/${command.step}/${direction}/${answer.outcome}`;
  const headers = {
    ce_specversion: '1.0',
    ce_id: answer.outcome === 'error' ? `${id}/${command.attempt}` : id,
    ce_type: answer.type,
    ce_source: '/payment-node',
    ce_time: answer.at,
    'content-type': 'application/json',
    'saga-id': command.sagaId,
    'saga-step': command.step,
    'saga-direction': direction,
    'saga-attempt': String(command.attempt),
    'saga-outcome': answer.outcome,
    'correlation-id': command.correlationId,
  };
  if (command.traceparent) headers.traceparent = command.traceparent;
  return {
    topic: command.replyTopic,
    partition: command.replyPartition,
    key: command.sagaId,
    headers,
    value: JSON.stringify(answer.payload),
  };
}

/** The record that keeps `record` where a person can see, correct and replay it: as it was, and why. */
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
