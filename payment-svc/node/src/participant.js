// The one rule of every consumer:
//
//   read records ─▶ do the work, in transactions ─▶ produce the replies, await the acknowledgments ─▶ commit the offsets
//
// In this order a crash anywhere costs a redelivery and nothing else: the redelivered command finds its work done and
// yields the same answer again. Committing before the work would lose commands; before the acknowledgments, answers.

import { Kafka, Partitioners, logLevel } from 'kafkajs';
import { about, log } from './log.js';
import { Undecodable, deadLetter, error, readCommand, replyRecord } from './message.js';

/** Commands between two commits: what a crash hands out again, at most. */
const CHUNK = 50;
/** How long a count of partitions is believed. */
const PARTITIONS_TTL_MS = 10_000;

/** Joins the group and handles commands until `stop()`. `handle(command)` yields the answer. */
export async function runParticipant(config, handle, noteFloor) {
  const kafka = new Kafka({
    clientId: 'payment-node',
    brokers: config.brokers,
    logLevel: logLevel.WARN,
    logCreator: () => ({ log: { message, error: cause }, level }) =>
      log(level === logLevel.ERROR ? 'error' : 'warn', message, { cause: cause && String(cause) }),
    // A broker that is away is waited for.
    retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: Number.MAX_SAFE_INTEGER },
  });
  const producer = kafka.producer({ allowAutoTopicCreation: false, createPartitioner: Partitioners.DefaultPartitioner });
  const admin = kafka.admin();
  const consumer = kafka.consumer({
    groupId: config.group,
    allowAutoTopicCreation: false,
    // How long the partitions of a process that was killed wait for another.
    sessionTimeout: 6_000,
    heartbeatInterval: 1_500,
    // Latency: the broker answers at the first byte, and after this long in any case.
    maxWaitTimeInMs: 100,
    // A batch that failed (the database is away) is tried again for as long as it takes.
    retry: { initialRetryTime: 100, maxRetryTime: 2_000, retries: 20, restartOnFailure: async () => true },
  });
  const partitionCount = createPartitionCount(admin);

  /** What a record comes to: its reply, or its dead letter with an `error` reply if it is known who asked. */
  async function outputs(topic, partition, record) {
    let command;
    try {
      command = readCommand(record, config.replyTopics);
      noteFloor(command.floorMs);
      const answer = await handle(command);
      log('info', `${command.type} answered ${answer.outcome}`, { ...about(command), reply: answer.type });
      return [replyRecord(command, answer)];
    } catch (failed) {
      const reason = blame(failed);
      // Not the record's fault: the chunk is run again.
      if (!reason) throw failed;
      log('warn', `dead-lettered: ${failed.message}`, { reason, partition, offset: record.offset });
      const letter = deadLetter(topic, partition, record, reason, failed.message);
      return command ? [letter, replyRecord(command, error(command, reason, failed.message))] : [letter];
    }
  }

  async function publish(records) {
    const byTopic = new Map();
    for (const { topic, partition, ...message } of records) {
      // Where the command said, whatever this client's partitioner would have chosen. A partition that does not exist
      // would never be acknowledged; then the key chooses.
      const exists = partition !== undefined && partition < (await partitionCount(topic));
      const messages = byTopic.get(topic) ?? [];
      byTopic.set(topic, [...messages, exists ? { ...message, partition } : message]);
    }
    const topicMessages = [...byTopic].map(([topic, messages]) => ({ topic, messages }));
    // -1: every in-sync replica has them when this returns.
    if (topicMessages.length > 0) await producer.sendBatch({ acks: -1, topicMessages });
  }

  async function eachBatch({ batch: { topic, partition, messages }, resolveOffset, heartbeat, isRunning, isStale }) {
    for (let from = 0; from < messages.length && isRunning() && !isStale(); from += CHUNK) {
      const chunk = messages.slice(from, from + CHUNK);
      const records = [];
      for (const record of chunk) {
        records.push(...(await outputs(topic, partition, record)));
        await heartbeat();
      }
      await publish(records);
      const last = chunk.at(-1).offset;
      resolveOffset(last);
      await consumer.commitOffsets([{ topic, partition, offset: String(BigInt(last) + 1n) }]);
    }
  }

  await Promise.all([producer.connect(), admin.connect(), consumer.connect()]);
  const topics = await admin.listTopics();
  for (const topic of [config.commandTopic, `${config.commandTopic}.dlq`, ...config.replyTopics]) {
    if (!topics.includes(topic)) throw new Error(`topic ${topic} does not exist: create it`);
  }
  // From the beginning where the group has no offset yet: a replay is safe, a command that is skipped is lost.
  await consumer.subscribe({ topics: [config.commandTopic], fromBeginning: true });
  await consumer.run({ autoCommit: false, eachBatchAutoResolve: false, partitionsConsumedConcurrently: 4, eachBatch });

  return {
    /** Finishes the chunks at hand, leaves the group, and closes. */
    async stop() {
      await consumer.disconnect();
      await Promise.all([producer.disconnect(), admin.disconnect()]);
    },
  };
}

/**
 * Why a record is to blame for a failure, or undefined if it is not. A record that fails every time must not stop its
 * partition; a database that is away must not send good records to the dead letters.
 */
export function blame(failed) {
  if (failed instanceof Undecodable) return failed.reason;
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
