// One JSON object a line, on stdout.

export function log(level, message, fields = {}) {
  const line = { at: new Date().toISOString(), level, message, ...fields };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

/** What every line about a command should carry. */
export function about(command) {
  return {
    'saga.id': command.sagaId,
    'saga.step': command.step,
    'saga.attempt': command.attempt,
    'correlation.id': command.correlationId,
  };
}
