// The barrier: what makes a participant safe against commands that come twice, late, or in the wrong order.
//
//   command ─▶ transaction 1: lock the step's row ─▶ admit ─┬─▶ answer (a saved one, or the handler's)
//                                                           └─▶ "pending" + what to ask outside, committed
//                                                                   │
//              transaction 2: settle ◀── the outcome ◀── the call, outside of any transaction
//
// A crash anywhere leaves either nothing, or a row that says `pending` with the call's key. The command's offset is not
// committed yet then, so Kafka delivers it again, and it repeats the same key. Nothing here knows about payments.

import { transaction } from './database.js';
import { Undecodable, beganAt, error, notDone, success } from './message.js';

/**
 * The table of the contract: what to do with a command of `direction`, given what the step's row says.
 * `forward` is null, 'pending', 'done', 'failed' or 'refused'; `compensation` is null, 'pending' or 'done'.
 */
export function admit(forward, compensation, direction) {
  if (direction === 'compensation') {
    if (compensation === 'done') return 'saved compensation';
    if (compensation === 'pending') return 'call compensation';
    if (forward === null) return 'refuse and compensate empty';
    if (forward === 'pending') return 'call forward';
    return forward === 'done' ? 'run' : 'compensate empty';
  }
  if (forward === 'pending') return 'call forward';
  if (forward === 'done' || forward === 'failed') return 'saved forward';
  if (forward === 'refused') return 'not done';
  // Nothing has happened. A resolve closes the door; an action may go through, unless its compensation was first.
  return direction === 'resolve' || compensation !== null ? 'refuse' : 'run';
}

/**
 * Gives a function that handles one command and yields its answer.
 *
 * The participant has `commands`: by type, `async (tx, command) => ({ answer } | { call })`, where `call` is what the
 * outside is to be asked; `ask(call)`, which asks it and yields an outcome, `{ kind: 'unknown' }` if there is none;
 * `settle(tx, call, outcome)`, which writes what the outcome means and yields the answer; and `emptyReplies`, the
 * reply's type by compensation type.
 */
export function createBarrier(pool, participant) {
  return async function handle(command) {
    for (;;) {
      const next = await transaction(pool, (tx) => decide(tx, participant, command));
      if (next.answer) return next.answer;
      const outcome = await participant.ask(next.call);
      if (outcome.kind === 'unknown') {
        // Neither "done" nor "not done" would be true. The row stays pending, and the next attempt, compensation or
        // resolve that finds it repeats the same key first.
        return error(command, 'outcome_unknown', `the outcome of a call is not known: ${outcome.why}`);
      }
      const unsaved = await transaction(pool, (tx) => settle(tx, participant, next.call, outcome));
      if (unsaved && next.call.direction === command.direction) return unsaved;
      // The row says what to answer now: round again.
    }
  };
}

/** Forgets what no saga can ask for any more: everything below the floor. Returns how many rows went. */
export function forgetBelow(pool, floorMs, lowestId) {
  return transaction(pool, async (tx) => {
    // In one transaction, so that nothing is forgotten whose late command would not be refused.
    await tx.query('UPDATE payment_node.saga_floor SET own_ms = $1 WHERE own_ms < $1', [floorMs]);
    const gone = await tx.query('DELETE FROM payment_node.barrier WHERE saga_id < $1', [lowestId]);
    return gone.rowCount;
  });
}

async function decide(tx, participant, command) {
  await refuseBelowFloor(tx, command);
  const row = await lock(tx, command);
  switch (admit(row.forward, row.compensation, command.direction)) {
    case 'run':
      return run(tx, participant, command, row);
    case 'call forward':
      return { call: row.forward_call };
    case 'call compensation':
      return { call: row.compensation_call };
    case 'saved forward':
      // Also what a resolve is answered with: the action's own answer, with the action's direction.
      return { answer: { ...row.forward_reply, direction: 'forward' } };
    case 'saved compensation':
      return { answer: row.compensation_reply };
    case 'refuse and compensate empty':
      await refuse(tx, command);
      return compensateEmpty(tx, participant, command);
    case 'compensate empty':
      return compensateEmpty(tx, participant, command);
    case 'refuse':
      await refuse(tx, command);
      return { answer: notDone(command) };
    case 'not done':
      return { answer: notDone(command) };
  }
}

async function run(tx, participant, command, row) {
  const handler = participant.commands[command.type];
  if (!handler) return { answer: error(command, 'unknown_command', `there is no command ${command.type} here`) };
  await tx.query('SAVEPOINT handler');
  const { answer, call } = await handler(tx, command);
  if (call) {
    const { sagaId, step, direction, type, saveFailure } = command;
    // What the gateway knows a call by. Repeated as it is until there is an outcome.
    const key = `${sagaId}/${step}/${direction}/${row[`${direction}_calls`]}`;
    const whole = { sagaId, step, direction, type, saveFailure, key, ...call };
    await write(tx, command, direction, { mark: 'pending', call: whole });
    return { call: whole };
  }
  // What a handler wrote before it said no is undone; the barrier's row is not.
  if (answer.outcome !== 'success') await tx.query('ROLLBACK TO SAVEPOINT handler');
  if (isSaved(command, answer)) await write(tx, command, command.direction, { mark: markOf(answer), reply: answer });
  return { answer };
}

/** Returns the answer if it is not saved: then the row does not have it. */
async function settle(tx, participant, call, outcome) {
  const row = await lock(tx, call);
  const open = row[call.direction] === 'pending' && row[`${call.direction}_call`].key === call.key;
  // Another process was first, with the same key and so with the same outcome.
  if (!open) return undefined;
  const answer = await participant.settle(tx, call, outcome);
  if (isSaved(call, answer)) {
    await write(tx, call, call.direction, { mark: markOf(answer), reply: answer });
    return undefined;
  }
  // Definitely not done, and not final: as if nothing had been, but the key is used up.
  await write(tx, call, call.direction, { mark: null, calls: row[`${call.direction}_calls`] + 1 });
  return answer;
}

/** An error never; a failure only if the command says so, and of a compensation never: it is tried again. */
function isSaved(command, answer) {
  if (answer.outcome === 'failure') return command.saveFailure && command.direction === 'forward';
  return answer.outcome === 'success';
}

const markOf = (answer) => (answer.outcome === 'success' ? 'done' : 'failed');

/** To the saga it looks like any other compensation: there is no difference. */
async function compensateEmpty(tx, participant, command) {
  const answer = success(participant.emptyReplies[command.type] ?? `${command.type}.done`, {});
  await write(tx, command, 'compensation', { mark: 'done', reply: answer });
  return { answer };
}

const refuse = (tx, command) => write(tx, command, 'forward', { mark: 'refused' });

async function refuseBelowFloor(tx, { sagaId }) {
  // Locked, so that the floor does not rise between this look and the row that it would have forgotten.
  const { rows } = await tx.query('SELECT own_ms FROM payment_node.saga_floor FOR SHARE');
  if (beganAt(sagaId) < Number(rows[0].own_ms)) {
    throw new Undecodable('below_floor', 'the saga is so old that what is known of it may be forgotten here');
  }
}

/** The step's row, made if it is missing, so that there is always something to lock. */
async function lock(tx, { sagaId, step }) {
  const make = 'INSERT INTO payment_node.barrier (saga_id, step) VALUES ($1, $2) ON CONFLICT DO NOTHING';
  await tx.query(make, [sagaId, step]);
  const read = 'SELECT * FROM payment_node.barrier WHERE saga_id = $1 AND step = $2 FOR UPDATE';
  const { rows } = await tx.query(read, [sagaId, step]);
  return rows[0];
}

/** `column` is 'forward' or 'compensation', never a text from outside. */
async function write(tx, { sagaId, step }, column, { mark, reply = null, call = null, calls = null }) {
  await tx.query(
    `UPDATE payment_node.barrier
     SET ${column} = $3, ${column}_reply = $4, ${column}_call = $5, ${column}_calls = coalesce($6, ${column}_calls)
     WHERE saga_id = $1 AND step = $2`,
    [sagaId, step, mark, reply && JSON.stringify(reply), call && JSON.stringify(call), calls],
  );
}
