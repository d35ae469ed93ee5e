// Postgres: transactions, and the migrations of ../migrations.

import { readFile, readdir } from 'node:fs/promises';
import pg from 'pg';

const MIGRATIONS = new URL('../migrations/', import.meta.url);
/** Any number that nothing else in the database locks. */
const MIGRATION_LOCK = 7_210_001;

export function connect(databaseUrl) {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 8, statement_timeout: 5_000 });
  // A connection that breaks must not end the process, idle or between two queries: the next query says what is wrong.
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
  return pool;
}

/** Runs `work` in one transaction: all of what it writes, or nothing. */
export async function transaction(pool, work) {
  const client = await pool.connect();
  let broken;
  try {
    await client.query('BEGIN');
    const result = await work(client);
    await client.query('COMMIT');
    return result;
  } catch (error) {
    // Also where the answer to COMMIT was lost: then it counts as not committed, the command is handled again, and
    // finds in the barrier what really happened.
    await client.query('ROLLBACK').catch((cause) => (broken = cause));
    throw error;
  } finally {
    client.release(broken);
  }
}

/** Brings the schema up to date; several processes may start at once. */
export async function migrate(pool) {
  const names = (await readdir(MIGRATIONS)).filter((name) => name.endsWith('.sql')).sort();
  await transaction(pool, async (tx) => {
    await tx.query('SELECT pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
    await tx.query('CREATE SCHEMA IF NOT EXISTS payment_node');
    await tx.query('CREATE TABLE IF NOT EXISTS payment_node.migration (name text PRIMARY KEY)');
    for (const name of names) {
      const known = 'INSERT INTO payment_node.migration (name) VALUES ($1) ON CONFLICT DO NOTHING';
      const { rowCount } = await tx.query(known, [name]);
      if (rowCount === 1) await tx.query(await readFile(new URL(name, MIGRATIONS), 'utf8'));
    }
  });
}
