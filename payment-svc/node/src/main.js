#!/usr/bin/env node
// A payment participant in Node. Start it with `npm start`; its settings are in config.js.

import { Barrier } from './barrier.js';
import { readConfig } from './config.js';
import { connect, migrate } from './database.js';
import { SimulatedGateway } from './gateway.js';
import { log } from './log.js';
import { runParticipant } from './participant.js';
import { createPayments } from './payments.js';
import { Forgetting, makePartitions } from './upkeep.js';

/** The time limit of a stop. Work that takes longer is redone by the member that gets the partitions. */
const STOP_LIMIT_MS = 30_000;

/**
 * Logs the reason and ends the process; a supervisor restarts it. A process that lives on without consuming would look
 * healthy.
 */
function end(why) {
  log('error', why);
  process.exit(1);
}

async function main() {
  const config = readConfig(process.env);
  const pool = connect(config.databaseUrl);
  await migrate(pool);
  await makePartitions(pool);
  const payments = createPayments(pool, new SimulatedGateway(connect(config.databaseUrl), config.gateway));

  const forgetting = new Forgetting(pool);
  const upkeep = setInterval(() => {
    makePartitions(pool)
      .then(() => forgetting.round())
      .catch((failed) => log('warn', `upkeep failed: ${failed.message}`));
  }, config.upkeepMs);

  const participant = await runParticipant(config, pool, new Barrier(pool, payments, config.calls), end);
  log('info', 'ready', { group: config.group, topic: config.commandTopic });

  let stopping = false;
  const stop = async (signal) => {
    // A second signal ends the process at once.
    if (stopping) process.exit(1);
    stopping = true;
    log('info', `${signal}: finishing what is at hand`);
    setTimeout(() => end(`not stopped within ${STOP_LIMIT_MS} ms`), STOP_LIMIT_MS).unref();
    clearInterval(upkeep);
    await participant.stop();
    log('info', 'stopped');
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop(signal));
}

// Rejected promises that are not awaited are handled here, too.
process.on('uncaughtException', (failed) => end(`unexpected: ${failed.stack}`));
main().catch((failed) => end(failed.message));
