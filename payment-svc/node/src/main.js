#!/usr/bin/env node
// A payment participant in Node. `npm start`; what it needs stands in config.js.

import { createBarrier, forgetBelow } from './barrier.js';
import { readConfig } from './config.js';
import { connect, migrate } from './database.js';
import { SimulatedGateway } from './gateway.js';
import { log } from './log.js';
import { lowestId } from './message.js';
import { runParticipant } from './participant.js';
import { createPayments } from './payments.js';

async function main() {
  const config = readConfig(process.env);
  const pool = connect(config.databaseUrl);
  await migrate(pool);
  const payments = createPayments(new SimulatedGateway(connect(config.databaseUrl), config.gateway));

  // Commands carry the floor: no saga that began before it is alive, so what is known of those may be forgotten.
  let floorMs = 0;
  const noteFloor = (ms) => (floorMs = Math.max(floorMs, ms));
  const upkeep = setInterval(() => {
    forgetBelow(pool, floorMs, lowestId(floorMs)).catch((failed) => log('warn', 'upkeep failed', { cause: failed.message }));
  }, config.upkeepMs);

  const participant = await runParticipant(config, createBarrier(pool, payments), noteFloor);
  log('info', 'ready', { group: config.group, topic: config.commandTopic });

  let stopping = false;
  const stop = async (signal) => {
    // Who asks twice does not want to wait.
    if (stopping) process.exit(1);
    stopping = true;
    log('info', `${signal}: finishing what is at hand`);
    clearInterval(upkeep);
    await participant.stop();
    log('info', 'stopped');
    process.exit(0);
  };
  for (const signal of ['SIGTERM', 'SIGINT']) process.on(signal, () => stop(signal));
}

main().catch((failed) => {
  log('error', failed.message);
  process.exit(1);
});
