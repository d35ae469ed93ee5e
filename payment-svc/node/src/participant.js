// The rule of every consumer:
//
//   read records ─▶ do the work, in transactions ─▶ produce the replies, await the acknowledgments ─▶ commit the offsets
//
// In this order a crash at any point costs a redelivery and nothing else: the redelivered command finds its work done and
// gets the same answer again. Committing before the work would lose commands; committing before the acknowledgments would
// lose answers.

import { setTimeout as sleep } from 'node:timers/promises';
import kafkajs from 'kafkajs';
import { cooperativeSticky } from './assigner.js';
import { registerCodecs } from './codecs.js';
import { GroupDatabase, Stranger } from './group_database.js';
import { log } from './log.js';
import { Undecodable, deadLetter, error, readCommand, reply, replyRecord } from './message.js';

const { Kafka, KafkaJSNonRetriableError, Partitioners, logLevel } = kafkajs;

/** The number of commands between two commits, which a crash redelivers at most. */
const CHUNK = 50;
/** The number of sagas of a partition that are handled concurrently. All partitions share eight database connections. */
const SAGAS_AT_ONCE = 4;
/** The interval between two heartbeats of a member that waits for the group to be claimed. */
const PATIENCE_MS = 1_000;
/** The time for which a partition count is cached. */
const PARTITIONS_TTL_MS = 10_000;

/** Takes the partition that a message names, or the one of its key (murmur2), as all clients of the other services do. */
export const byKey = Partitioners.DefaultPartitioner;

/**
 * Joins the group and handles commands until `stop()`. `end(why)` must end the process: the consumer has ended and will not
 * come back.
 */
export async function runParticipant(config, pool, barrier, end) {
  registerCodecs();
  const kafka = new Kafka({
    clientId: 'payment-node',
    brokers: config.brokers,
    logLevel: logLevel.WARN,
    logCreator: () => ({ log: { message, error: cause }, level }) =>
      log(level === logLevel.ERROR ? 'error' : 'warn', message, { cause: cause && String(cause) }),
    // An unavailable broker is waited for.
    retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: Number.MAX_SAFE_INTEGER },
  });
  const producer = kafka.producer({ allowAutoTopicCreation: false, createPartitioner: byKey });
  const admin = kafka.admin();
  const consumer = kafka.consumer({
    groupId: config.group,
    // The assigner of the members in Rust, so that both kinds can share a group.
    partitionAssigners: [cooperativeSticky],
    allowAutoTopicCreation: false,
    // The time after which the partitions of a killed process are reassigned.
    sessionTimeout: 6_000,
    heartbeatInterval: 1_500,
    // A latency bound: the broker answers at the first byte, and after this time in any case.
    maxWaitTimeInMs: 100,
    // A failed batch (for example while the database is unavailable) is retried for as long as it takes.
    retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: 20, restartOnFailure: async () => true },
  });
  // kafkajs only reports to a listener that it has given up; without it the process would live on and consume nothing.
  consumer.on(consumer.events.CRASH, ({ payload: { error: cause, restart } }) => {
    if (!restart) end(`the consumer of topic ${config.commandTopic} in group ${config.group} ended: ${cause.message}`);
  });
  const partitionCount = createPartitionCount(admin);
  let database;
  consumer.on(consumer.events.GROUP_JOIN, ({ payload: { memberAssignment } }) => {
    database.assigned(memberAssignment[config.commandTopic] ?? []);
  });

  /** Commits an offset together with the id of the database, which each new member compares with its own. */
  function commit(topic, partition, offset) {
    return consumer.commitOffsets([{ topic, partition, offset, metadata: database.mark() }]);
  }

  /** Resolves when the group is known to belong to this process's database. */
  async function claimed() {
    try {
      await database.claim((partition, offset) => commit(config.commandTopic, partition, offset));
    } catch (failed) {
      if (failed instanceof Stranger) end(failed.message);
      throw failed;
    }
  }

  /**
   * Handles a record. Returns the replies, or the record's dead letter with an `error` reply if the sender is known; and
   * the calls to close once all of these are acknowledged.
   */
  async function outputs(topic, partition, record) {
    let command;
    try {
      command = readCommand(record, config.replyTopics);
      const { replies, told } = await barrier.handle(command);
      replies.forEach(note);
      return { records: replies.map(replyRecord), told };
    } catch (failed) {
      const reason = blame(failed);
      // The record is not to blame: the chunk is run again.
      if (!reason) throw failed;
      log('warn', `dead-lettered: ${failed.message}`, { reason, partition, offset: record.offset });
      const letter = deadLetter(topic, partition, record, reason, failed.message);
      const asked = command ?? failed.command;
      if (!asked) return { records: [letter], told: [] };
      const answer = reply(asked, error(asked, reason, failed.message), new Date());
      return { records: [letter, replyRecord(answer)], told: [] };
    }
  }

  /** Sweeps calls whose lease has ended, whichever process has made them. */
  async function sweep() {
    await claimed();
    await database.note();
    const { replies, told } = await barrier.sweep();
    replies.forEach(note);
    await publish(replies.map(replyRecord));
    await barrier.close(told);
  }

  async function publish(records) {
    const byTopic = new Map();
    for (const { topic, partition, ...message } of records) {
      // The reply's partition is the one that the command names, whatever this client's partitioner would choose. A
      // record for a partition that does not exist would never be acknowledged; then the key decides.
      const exists = partition !== undefined && partition < (await partitionCount(topic));
      const messages = byTopic.get(topic) ?? [];
      byTopic.set(topic, [...messages, exists ? { ...message, partition } : message]);
    }
    for (const [topic, messages] of byTopic) await send(producer, topic, messages);
  }

  async function eachBatch({ batch: { topic, partition, messages }, resolveOffset, heartbeat, isRunning, isStale }) {
    const known = claimed().then(() => true);
    // A heartbeat may fail before the claim does.
    known.catch(() => {});
    while (!(await Promise.race([known, sleep(PATIENCE_MS, false)]))) await heartbeat();
    for (let from = 0; from < messages.length && isRunning() && !isStale(); from += CHUNK) {
      const chunk = messages.slice(from, from + CHUNK);
      const done = await bySaga(chunk, async (record) => {
        const output = await outputs(topic, partition, record);
        await heartbeat();
        return output;
      });
      await publish(done.flatMap(({ records }) => records));
      const last = chunk.at(-1).offset;
      resolveOffset(last);
      const next = String(BigInt(last) + 1n);
      await commit(topic, partition, next);
      database.done(partition, next);
      await barrier.close(done.flatMap(({ told }) => told));
    }
  }

  await Promise.all([producer.connect(), admin.connect(), consumer.connect()]);
  const topics = await admin.listTopics();
  for (const topic of [config.commandTopic, `${config.commandTopic}.dlq`, ...config.replyTopics]) {
    if (!topics.includes(topic)) throw new Error(`topic ${topic} does not exist: create it`);
  }
  database = await GroupDatabase.open(pool, admin, config.group, config.commandTopic);
  // From the beginning if the group has no offset yet: a replay is safe, and a skipped command is lost.
  await consumer.subscribe({ topics: [config.commandTopic], fromBeginning: true });
  await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, partitionsConsumedConcurrently: 4, eachBatch });

  let sweeping;
  const sweeps = setInterval(() => {
    sweeping ??= sweep()
      .catch((failed) => {
        if (failed instanceof Stranger) end(failed.message);
        log('warn', `a sweep failed: ${failed.message}`);
      })
      .finally(() => (sweeping = undefined));
  }, config.calls.retryMs);

  return {
    /** Finishes the chunks in flight, leaves the group, and closes. */
    async stop() {
      clearInterval(sweeps);
      await consumer.disconnect();
      await sweeping;
      await Promise.all([producer.disconnect(), admin.disconnect()]);
    },
  };
}

/** Produces the messages, one by one if the topic does not take their batch. */
export async function send(producer, topic, messages) {
  try {
    // -1: all in-sync replicas have the records when this returns.
    await producer.send({ topic, acks: -1, messages });
  } catch (failed) {
    if ((failed.cause ?? failed).type !== 'MESSAGE_TOO_LARGE') throw failed;
    if (messages.length === 1) {
      const bytes = Buffer.byteLength(messages[0].value ?? '');
      throw new KafkaJSNonRetriableError(`topic ${topic} refuses a record with ${bytes} bytes: raise its max.message.bytes`);
    }
    // Each record may fit although the whole batch does not.
    for (const message of messages) await send(producer, topic, [message]);
  }
}

/** Handles the records of one saga in order, and several sagas concurrently. Returns the outputs in log order. */
export async function bySaga(records, work) {
  const outputs = new Array(records.length);
  const sagas = new Map();
  for (const [index, record] of records.entries()) {
    const key = String(record.key);
    sagas.set(key, [...(sagas.get(key) ?? []), index]);
  }
  const waiting = [...sagas.values()];
  const worker = async () => {
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      for (const index of next) outputs[index] = await work(records[index]);
    }
  };
  // All workers have ended when this returns, so that no worker is still busy with a chunk that is run again.
  const ended = await Promise.allSettled(Array.from({ length: SAGAS_AT_ONCE }, worker));
  const failed = ended.find(({ status }) => status === 'rejected');
  if (failed) throw failed.reason;
  return outputs;
}

function note({ reply: { saga_id, step, attempt, trace, reply_type, outcome } }) {
  const about = { 'saga.id': saga_id, 'saga.step': step, 'saga.attempt': attempt, 'correlation.id': trace.correlation_id };
  log('info', `answered ${outcome}`, { ...about, reply: reply_type });
}

/**
 * Returns the reason if the record is to blame for a failure, otherwise undefined. A record that fails every time must
 * not block its partition; an unavailable database must not send good records to the dead letters.
 */
export function blame(failed) {
  if (failed instanceof Undecodable) return failed.reason;
  // A partition of the barrier is missing; upkeep creates it.
  if (failed.code === '23514' && !failed.constraint) return undefined;
  // SQLSTATE classes 22 and 23: the data cannot be stored.
  if (/^2[23]...$/.test(failed.code)) return 'data_error';
  const isBug = [TypeError, RangeError, ReferenceError, SyntaxError].some((kind) => failed instanceof kind);
  return isBug ? 'handler_broken' : undefined;
}

function createPartitionCount(admin) {
  const known = new Map();
  return async (topic) => {
    const { count, at } = known.get(topic) ?? {};
    if (count !== undefined && Date.now() - at < PARTITIONS_TTL_MS) return count;
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    const fresh = topics[0].partitions.length;
    known.set(topic, { count: fresh, at: Date.now() });
    return fresh;
  };
}
