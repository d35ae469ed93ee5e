// The configuration, read from the environment.

/** Reads and checks the configuration; throws an Error that names the variable. */
export function readConfig(env) {
  const required = (name) => {
    if (!env[name]) throw new Error(`${name} is not set (see payment-svc/node/README.md)`);
    return env[name];
  };
  const json = (name, fallback) => {
    try {
      return JSON.parse(env[name] || fallback);
    } catch (error) {
      throw new Error(`${name} is not JSON: ${error.message}`);
    }
  };
  const gatewayTimeoutMs = Number(env.GATEWAY_TIMEOUT_MS || '1000');
  return {
    brokers: required('KAFKA_BROKERS').split(','),
    databaseUrl: required('DATABASE_URL'),
    commandTopic: env.COMMAND_TOPIC || 'payment.commands',
    // The orchestrator reads this group's committed offsets to know which commands have been consumed. The name must
    // therefore be the one that the orchestrator's configuration has for this participant.
    group: env.CONSUMER_GROUP || 'payment-svc',
    // A command with any other reply topic is refused: a topic that does not exist would block the partition.
    replyTopics: (env.REPLY_TOPICS || 'saga.inputs').split(','),
    // The interval at which partitions are created in advance, and data below the floor is deleted.
    upkeepMs: Number(env.UPKEEP_MS || 30_000),
    calls: {
      // The time without an outcome after which another process claims a call. It must be above the gateway's timeout.
      leaseMs: 5 * gatewayTimeoutMs,
      // The pause between two tries of a call whose outcome is unknown.
      retryMs: 500,
      // The time for which the gateway stores a key. An older call is not repeated any more; a person has to look at it.
      keyLifetimeMs: 24 * 60 * 60 * 1000,
    },
    gateway: {
      // The limit in major units, the same number in every currency. A larger charge is declined.
      limit: Number(env.GATEWAY_LIMIT || '1000.00'),
      // The rules by which the simulated gateway fails, for tests; see gateway.js.
      rules: json('GATEWAY_RULES', '[]'),
      timeoutMs: gatewayTimeoutMs,
    },
  };
}
