// Postgres: connections, transactions and migrations.
//
// The tables are payment-svc's. They are created by the same migration files and recorded in the same history, so that
// either kind of process may start first, and both can use one database. Copy the migration files together with this
// example.

import { createHash } from 'node:crypto';
import { readFile, readdir } from 'node:fs/promises';
import pg from 'pg';

/** Each folder of migrations has its own history: the business's tables, and the barrier's. */
const MIGRATIONS = [
  { folder: new URL('../../../migrations/payment/', import.meta.url), history: '_sqlx_migrations' },
  { folder: new URL('../../../saga-core/messaging/migrations/', import.meta.url), history: '_saga_messaging_migrations' },
];
const STATEMENT_TIMEOUT_MS = 5_000;
/** The client's own limit, for a connection that has gone silent: the server cannot report its timeout over it. */
const ANSWER_TIMEOUT_MS = 7_000;

export function connect(databaseUrl) {
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    max: 8,
    statement_timeout: STATEMENT_TIMEOUT_MS,
    query_timeout: ANSWER_TIMEOUT_MS,
    connectionTimeoutMillis: ANSWER_TIMEOUT_MS,
    keepAlive: true,
  });
  // A broken connection must not end the process, neither idle nor between two queries. The next query reports the error.
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
  return pool;
}

/** Runs `work` in one transaction: all of its writes are committed, or none. */
export async function transaction(pool, work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    // If the answer to COMMIT was lost, the transaction counts as not committed. The command is handled again, and the
    // barrier's rows show what was committed. A connection that failed without an answer of the server is discarded.
    if (error instanceof pg.DatabaseError) await client.query('ROLLBACK').catch((cause) => (broken = cause));
    else broken = error;
    throw error;
  } finally {
    client.release(broken);
  }
}

/** Applies the missing migrations; several processes may start at once. Migrations of a newer version are ignored. */
export async function migrate(pool) {
  await transaction(pool, async (tx) => {
    const { rows } = await tx.query('SELECT current_database() AS name');
    await tx.query('SELECT pg_advisory_xact_lock($1)', [migrationLock(rows[0].name)]);
    for (const { folder, history } of MIGRATIONS) await migrateBy(tx, folder, history);
  });
}

async function migrateBy(tx, folder, history) {
  await tx.query(
    `CREATE TABLE IF NOT EXISTS ${history} (version bigint PRIMARY KEY, description text NOT NULL,
       installed_on timestamptz NOT NULL DEFAULT now(), success boolean NOT NULL, checksum bytea NOT NULL,
       execution_time bigint NOT NULL)`,
  );
  const { rows } = await tx.query(`SELECT version, checksum FROM ${history}`);
  const known = new Map(rows.map((row) => [Number(row.version), row.checksum]));
  for (const name of (await readdir(folder)).filter((file) => file.endsWith('.sql')).sort()) {
    const sql = await readFile(new URL(name, folder));
    const [, version, description] = /^(\d+)_(.*)\.sql$/.exec(name);
    const checksum = createHash('sha384').update(sql).digest();
    const applied = known.get(Number(version));
    if (applied && !checksum.equals(applied)) throw new Error(`migration ${name} in the database differs from the file`);
    if (applied) continue;
    await tx.query(sql.toString('utf8'));
    await tx.query(
      `INSERT INTO ${history} (version, description, success, checksum, execution_time) VALUES ($1, $2, true, $3, 0)`,
      [Number(version), description.replaceAll('_', ' '), checksum],
    );
  }
}

/**
 * The advisory lock that payment-svc takes for its migrations (sqlx derives it from the database's name), so that only
 * one process migrates at a time.
 */
export function migrationLock(database) {
  let crc = 0xffffffff;
  for (const byte of Buffer.from(database)) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return String(0x3d32ad9en * BigInt((crc ^ 0xffffffff) >>> 0));
}
