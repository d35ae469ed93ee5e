// Everything that can be set, from the environment.

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
  return {
    brokers: required('KAFKA_BROKERS').split(','),
    databaseUrl: required('DATABASE_URL'),
    commandTopic: env.COMMAND_TOPIC || 'payment.commands',
    // The orchestrator reads this group's committed offsets to tell what has been picked up, so the name must be the
    // one that its configuration has for this participant.
    group: env.CONSUMER_GROUP || 'payment-svc',
    // A command that wants its reply elsewhere is refused: a topic that does not exist would stop everything.
    replyTopics: (env.REPLY_TOPICS || 'saga.inputs').split(','),
    // How often what is below the floor is forgotten.
    upkeepMs: Number(env.UPKEEP_MS || 60 * 60 * 1000),
    gateway: {
      // In major units, the same number in every currency; a larger charge is declined.
      limit: Number(env.GATEWAY_LIMIT || '1000.00'),
      // How the simulated gateway misbehaves, for tests; see gateway.js.
      rules: json('GATEWAY_RULES', '[]'),
      timeoutMs: Number(env.GATEWAY_TIMEOUT_MS || '1000'),
    },
  };
}
