// Writes log lines, one JSON object per line, to stdout.

export function log(level, message, fields = {}) {
  const line = { at: new Date().toISOString(), level, message, ...fields };
  process.stdout.write(`${JSON.stringify(line)}\n`);
}
