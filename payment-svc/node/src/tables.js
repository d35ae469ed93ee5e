// The barrier's tables: the outcomes of steps (`inbox`), the open calls (`intent`), and the floor below which data is
// deleted (`saga_floor`). saga-core/messaging/migrations documents the columns. Locks are always taken in the same order,
// intents first, so that transactions cannot deadlock.

import { commandOf, storedCommand } from './message.js';

const CODES = { forward: 'F', compensation: 'C' };
const DIRECTIONS = { F: 'forward', C: 'compensation' };
const MARKS = { P: 'pending', D: 'done', X: 'failed', R: 'refused' };
const codeOf = (mark) => Object.keys(MARKS).find((code) => MARKS[code] === mark);

/** Another transaction wrote a row between this one's read and write: the whole transaction is repeated. */
export class Rival extends Error {}

/** The rows of one saga, in a transaction that has locked its open calls. A write changes this object and the tables. */
export class SagaRows {
  #tx;
  #sagaId;
  #rows = new Map();
  #intents = new Map();

  static async lock(tx, sagaId) {
    const found = new SagaRows();
    found.#tx = tx;
    found.#sagaId = sagaId;
    const intents = await tx.query(`${INTENT} WHERE saga_id = $1 ORDER BY saga_id, step, direction FOR UPDATE`, [sagaId]);
    for (const row of intents.rows) found.#intents.set(`${row.step}/${DIRECTIONS[row.direction]}`, intentOf(row));
    const { rows } = await tx.query(
      `SELECT clock_timestamp() AS now, f.own_ms, f.seen_ms, i.step, i.direction::text, i.mark::text, i.reply, i.handled_at
       FROM saga_floor f LEFT JOIN inbox i ON i.saga_id = $1 WHERE f.singleton`,
      [sagaId],
    );
    found.now = rows[0].now;
    found.floors = { ownMs: Number(rows[0].own_ms), seenMs: Number(rows[0].seen_ms) };
    for (const { step, direction, mark, reply, handled_at: at } of rows) {
      if (step) found.#rows.set(`${step}/${DIRECTIONS[direction]}`, { mark: MARKS[mark], reply, at });
    }
    return found;
  }

  row(step, direction) {
    return this.#rows.get(`${step}/${direction}`);
  }

  intent(step, direction) {
    return this.#intents.get(`${step}/${direction}`);
  }

  /** Writes a row. A pending row may get its outcome; no other row ever changes. `reply` is { type, outcome, payload }. */
  async write(step, direction, mark, reply = null) {
    const before = this.row(step, direction);
    const values = [this.#sagaId, step, CODES[direction], codeOf(mark), reply && JSON.stringify(reply), this.now];
    const { rowCount } = await this.#tx.query(before ? SETTLE_ROW : INSERT_ROW, values);
    if (rowCount !== 1) throw new Rival(`a rival was first with ${step} of saga ${this.#sagaId}`);
    this.#rows.set(`${step}/${direction}`, { mark, reply, at: this.now });
  }

  /** Deletes the row of a call that was definitely not done, as if it had never been made. */
  async release(step, direction) {
    const { rowCount } = await this.#tx.query(
      `DELETE FROM inbox WHERE saga_id = $1 AND step = $2 AND direction = $3::"char" AND mark = 'P'`,
      [this.#sagaId, step, CODES[direction]],
    );
    if (rowCount !== 1) throw new Rival(`a rival was first with ${step} of saga ${this.#sagaId}`);
    this.#rows.delete(`${step}/${direction}`);
  }

  async writeIntent(step, direction, intent) {
    const json = (value) => value && JSON.stringify(value);
    await this.#tx.query(WRITE_INTENT, [
      this.#sagaId,
      step,
      CODES[direction],
      intent.generation,
      intent.state,
      intent.leaseUntil,
      intent.openedAt,
      json(storedCommand(intent.command)),
      json(intent.cancel && storedCommand(intent.cancel)),
      json(intent.resolve && storedCommand(intent.resolve)),
      json(intent.replies),
    ]);
    this.#intents.set(`${step}/${direction}`, intent);
  }

  /**
   * Deletes a released intent, because its command can never run again. The intent holds the number of the next key, and
   * is deleted only after its last reply.
   */
  async forgetReleased(step, direction) {
    const intent = this.intent(step, direction);
    if (intent?.state !== 'released') return;
    if (intent.replies) {
      await this.writeIntent(step, direction, { ...intent, state: 'settled' });
      return;
    }
    await this.#tx.query(`DELETE FROM intent WHERE ${ONE_INTENT}`, [this.#sagaId, step, CODES[direction]]);
    this.#intents.delete(`${step}/${direction}`);
  }

  raiseSeenFloor(floorMs) {
    return this.#tx.query('UPDATE saga_floor SET seen_ms = $1 WHERE singleton AND seen_ms < $1', [floorMs]);
  }
}

/**
 * Claims calls or replies whose lease has ended: at most `limit` calls to make or replies to send. `SKIP LOCKED` skips
 * the rows that another process is claiming.
 */
export async function claim(pool, calls, limit, leaseMs) {
  const { rows } = await pool.query(
    `UPDATE intent i SET lease_until = clock_timestamp() + $3 * interval '1 millisecond'
     FROM (SELECT saga_id, step, direction FROM intent
           WHERE (state = 'open' OR replies IS NOT NULL) AND (state = 'open') = $1 AND lease_until < clock_timestamp()
           ORDER BY lease_until LIMIT $2 FOR UPDATE SKIP LOCKED) AS due
     WHERE i.saga_id = due.saga_id AND i.step = due.step AND i.direction = due.direction
     RETURNING i.saga_id, i.step, i.direction::text, i.generation, i.state, i.lease_until, i.opened_at, i.command,
       i.cancel_requested, i.resolve_requested, i.replies`,
    [calls, limit, leaseMs],
  );
  return rows.map((row) => ({ sagaId: row.saga_id, step: row.step, direction: DIRECTIONS[row.direction], intent: intentOf(row) }));
}

/** Closes a call whose replies are acknowledged: a final call is deleted, and the replies of other calls are cleared. */
export function close(pool, { sagaId, step, direction, generation, isFinal }) {
  const of = [sagaId, step, CODES[direction], generation];
  const same = `${ONE_INTENT} AND generation = $4`;
  return isFinal
    ? pool.query(`DELETE FROM intent WHERE ${same} AND state = 'settled'`, of)
    : pool.query(
        `UPDATE intent SET replies = NULL, cancel_requested = NULL, resolve_requested = NULL
         WHERE ${same} AND state IN ('released', 'expired')`,
        of,
      );
}

const ONE_INTENT = 'saga_id = $1 AND step = $2 AND direction = $3::"char"';

const INTENT = `SELECT saga_id, step, direction::text, generation, state, lease_until, opened_at, command, cancel_requested,
  resolve_requested, replies FROM intent`;

const INSERT_ROW = `INSERT INTO inbox (saga_id, step, direction, mark, reply, handled_at)
  VALUES ($1, $2, $3::"char", $4::"char", $5, $6) ON CONFLICT DO NOTHING`;

const SETTLE_ROW = `UPDATE inbox SET mark = $4::"char", reply = $5, handled_at = $6
  WHERE saga_id = $1 AND step = $2 AND direction = $3::"char" AND mark = 'P'`;

/** A rival's new call can be overwritten only by a transaction that then finds the rival's row, and is rolled back. */
const WRITE_INTENT = `INSERT INTO intent (saga_id, step, direction, generation, state, lease_until, opened_at, command,
    cancel_requested, resolve_requested, replies)
  VALUES ($1, $2, $3::"char", $4, $5, $6, $7, $8, $9, $10, $11)
  ON CONFLICT (saga_id, step, direction) DO UPDATE SET generation = excluded.generation, state = excluded.state,
    lease_until = excluded.lease_until, opened_at = excluded.opened_at, command = excluded.command,
    cancel_requested = excluded.cancel_requested, resolve_requested = excluded.resolve_requested,
    replies = excluded.replies`;

function intentOf(row) {
  return {
    generation: row.generation,
    state: row.state,
    leaseUntil: row.lease_until,
    openedAt: row.opened_at,
    command: commandOf(row.command),
    cancel: row.cancel_requested && commandOf(row.cancel_requested),
    resolve: row.resolve_requested && commandOf(row.resolve_requested),
    replies: row.replies,
  };
}
