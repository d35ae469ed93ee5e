// Maintains the partitions of the barrier's table: creates them in advance, and drops them whole once no saga can need
// them any more.
//
// Commands carry the orchestrator's floor, a low-water mark: every saga that began before it has ended. Partitions wholly
// below the highest floor seen are dropped in three steps, so that no command ever runs a second time because the record
// of its first run was deleted:
//   1. the own floor rises to the end of the newest partition below it: older commands are refused from then on;
//   2. nothing happens while a transaction lives that may have read the former one;
//   3. the partitions below it go. A call that is still open keeps its partition.
// payment-svc does the same; both may do so at once.

import { transaction } from './database.js';
import { beganAt, lowestId } from './message.js';

const DAY_MS = 24 * 60 * 60 * 1000;
/** The number of days for which partitions are created in advance, and for a new table also back in time. */
const DAYS_AHEAD = 7;
const DAYS_BACK = 2;
/** The advisory lock under which partitions are created and dropped. */
const PARTITIONS_LOCK = String(0x5341_4741_494e_424fn);
/** The time for which a drop may block other transactions on the table. */
const DROP_TIMEOUT_MS = 100;

/** Returns the missing partitions up to `DAYS_AHEAD` days ahead: [from, to) in milliseconds, null for the beginning. */
export function missing(ends, nowMs, ownFloorMs) {
  const today = Math.floor(nowMs / DAY_MS) * DAY_MS;
  const first = Math.max(today - DAYS_BACK * DAY_MS, Math.floor(ownFloorMs / DAY_MS) * DAY_MS);
  const spans = ends.length === 0 ? [[ownFloorMs > 0 ? ownFloorMs : null, first]] : [];
  const until = today + (DAYS_AHEAD + 1) * DAY_MS;
  for (let from = ends.length === 0 ? first : Math.max(...ends); from < until; ) {
    const to = Math.floor(from / DAY_MS) * DAY_MS + DAY_MS;
    spans.push([from, to]);
    from = to;
  }
  return spans.filter(([from, to]) => from === null || from < to);
}

/** Returns the existing partitions, oldest first. An upper bound that falls between two milliseconds is rounded up. */
async function partitions(db) {
  const { rows } = await db.query(
    `SELECT name, substring(bound FROM 'TO \\(''([0-9a-f-]{36})''\\)') AS upper
     FROM (SELECT c.relname::text AS name, pg_get_expr(c.relpartbound, c.oid) AS bound
           FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'inbox'::regclass) AS partition
     ORDER BY upper`,
  );
  const endOf = (upper) => beganAt(upper) + (lowestId(beganAt(upper)) === upper ? 0 : 1);
  return rows.map(({ name, upper }) => ({ name, endMs: upper === null ? Infinity : endOf(upper) }));
}

/**
 * Creates the missing partitions. Other processes may do the same concurrently, and other transactions may use the table.
 */
export async function makePartitions(pool) {
  const look = async (db) => {
    const { rows } = await db.query('SELECT clock_timestamp() AS now, own_ms FROM saga_floor WHERE singleton');
    const ends = (await partitions(db)).map(({ endMs }) => endMs);
    return missing(ends, rows[0].now.getTime(), Number(rows[0].own_ms));
  };
  if ((await look(pool)).length === 0) return;
  await transaction(pool, async (tx) => {
    await tx.query('SELECT pg_advisory_xact_lock($1)', [PARTITIONS_LOCK]);
    for (const [from, to] of await look(tx)) {
      const name = from === null ? 'inbox_oldest' : `inbox_${nameOf(from)}`;
      const lower = from === null ? 'MINVALUE' : `'${lowestId(from)}'`;
      // Created separately and then attached: CREATE … PARTITION OF would block all users of the table.
      await tx.query(`CREATE TABLE ${name} (LIKE inbox INCLUDING ALL)`);
      await tx.query(`ALTER TABLE inbox ATTACH PARTITION ${name} FOR VALUES FROM (${lower}) TO ('${lowestId(to)}')`);
    }
  });
}

/** Returns a partition's name such as `20261119`, with the time if the partition does not begin with the day. */
function nameOf(fromMs) {
  const [day, time] = new Date(fromMs).toISOString().replace(/[-:.Z]/g, '').split('T');
  return fromMs % DAY_MS === 0 ? day : `${day}_${time}`;
}

/** Raises the floor and drops old partitions, one step per round. */
export class Forgetting {
  #pool;
  /** The own floor as it was read after its commit, and the time of that read. */
  #seen;

  constructor(pool) {
    this.#pool = pool;
  }

  async round() {
    const { rows } = await this.#pool.query('SELECT own_ms, seen_ms, clock_timestamp() AS now FROM saga_floor WHERE singleton');
    const below = (await partitions(this.#pool)).map(({ endMs }) => endMs).filter((endMs) => endMs <= Number(rows[0].seen_ms));
    const ownMs = Math.max(Number(rows[0].own_ms), ...below);
    await this.#pool.query('UPDATE saga_floor SET own_ms = $1 WHERE singleton AND own_ms < $1', [ownMs]);
    if (this.#seen?.ownMs !== ownMs) {
      const { rows: clock } = await this.#pool.query('SELECT clock_timestamp() AS now');
      this.#seen = { ownMs, at: clock[0].now };
    }
    if (await this.#isRead()) await this.#drop(ownMs);
  }

  /**
   * Returns true if every running transaction has read the floor or will read it. A server that tracks no activity cannot
   * tell, and returns false.
   */
  async #isRead() {
    const { rows } = await this.#pool.query(
      `SELECT current_setting('track_activities')::boolean AND NOT EXISTS (
         SELECT FROM pg_stat_activity WHERE datname = current_database() AND usename = current_user
         AND backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start <= $1) AS read`,
      // Dates have milliseconds, the server's times microseconds.
      [new Date(this.#seen.at.getTime() + 1)],
    );
    return rows[0].read;
  }

  async #drop(ownMs) {
    const open = `SELECT saga_id FROM intent WHERE state = 'open' OR replies IS NOT NULL ORDER BY saga_id LIMIT 1`;
    const { rows } = await this.#pool.query(open);
    const belowMs = Math.min(ownMs, rows.length > 0 ? beganAt(rows[0].saga_id) : Infinity);
    const ended = `DELETE FROM intent WHERE saga_id < $1 AND state <> 'open' AND replies IS NULL`;
    await this.#pool.query(ended, [lowestId(belowMs)]);
    for (const { name } of (await partitions(this.#pool)).filter(({ endMs }) => endMs <= belowMs)) {
      await transaction(this.#pool, async (tx) => {
        await tx.query(`SET LOCAL lock_timeout = '${DROP_TIMEOUT_MS}ms'`);
        await tx.query('SELECT pg_advisory_xact_lock($1)', [PARTITIONS_LOCK]);
        // The parent table's lock is taken first, as all other users do.
        await tx.query('LOCK TABLE ONLY inbox IN ACCESS EXCLUSIVE MODE');
        await tx.query(`DROP TABLE IF EXISTS "${name}"`);
      });
    }
  }
}
