// The barrier: protects a participant against commands that arrive twice, late, or in the wrong order.
//
//   command ─▶ transaction 1: lock the saga's rows ─▶ admit ─┬─▶ reply (a saved one, or the handler's)
//                                                            └─▶ "pending", with what to ask outside and a lease
//                                                                    │
//              transaction 2: settle ◀── the outcome ◀── the call, outside of any transaction
//                    └─▶ replies, kept with the call until they are acknowledged
//
// A crash at any point leaves either nothing, or a call whose lease ends. Then the sweep of any process, in Node or in
// Rust, claims the call and repeats it with the same key, or sends the replies again. Commands that arrive while a call
// is open are stored with it. This file knows nothing about payments.

import { transaction } from './database.js';
import { Undecodable, beganAt, error, notDone, reply, success } from './message.js';
import { Rival, SagaRows, claim, close } from './tables.js';

/**
 * The limit for ids from the future. Clocks differ by minutes; an id from further in the future is a mistake, and has no
 * partition.
 */
const AHEAD_LIMIT_MS = 24 * 60 * 60 * 1000;
/** The maximum number of intents that one sweep claims. */
const SWEEP_LIMIT = 16;

/**
 * The table of the contract: returns what to do with a command of `direction`. `forward` and `compensation` are the marks
 * of the step's rows: undefined, 'pending', 'done', 'failed' or 'refused'.
 */
export function admit(forward, compensation, direction) {
  if (direction === 'compensation') {
    if (compensation === 'done') return 'saved compensation';
    if (compensation === 'pending' || forward === 'pending') return 'wait';
    if (forward === undefined) return 'refuse and compensate empty';
    return forward === 'done' ? 'run' : 'compensate empty';
  }
  if (forward === 'pending') return 'wait';
  if (forward === 'done' || forward === 'failed') return 'saved forward';
  if (forward === 'refused') return 'not done';
  // Nothing has happened yet. A resolve refuses later actions. An action may run, unless its compensation was first.
  return direction === 'resolve' || compensation !== undefined ? 'refuse' : 'run';
}

/**
 * The barrier over a database. Its participant has:
 * - `commands`: by type, `async (tx, command) => answer`, or no answer if an external call is needed;
 * - `ask(key, command)`, which makes the external call and returns an outcome of `kind` approved, declined, failed or
 *   unknown;
 * - `settle(tx, command, outcome)`, which writes the outcome and returns the answer;
 * - `emptyReplies`, the reply's type by compensation type.
 */
export class Barrier {
  #pool;
  #participant;
  #limits;

  /**
   * `limits`: `leaseMs` is the lease of a call, `retryMs` the pause between two tries, `keyLifetimeMs` the time for which
   * the external system stores a key.
   */
  constructor(pool, participant, limits) {
    this.#pool = pool;
    this.#participant = participant;
    this.#limits = limits;
  }

  /**
   * Returns { replies, told }: the replies to send, and the calls to `close` once the replies are acknowledged. Without a
   * reply, another process holds the lease of the step's call, and will answer this command too.
   */
  async handle(command) {
    const decided = await this.#transaction(command.sagaId, async (tx, rows) => {
      checkAge(rows, command);
      if (command.floorMs > rows.floors.seenMs && command.floorMs <= beganAt(command.sagaId)) {
        await rows.raiseSeenFloor(command.floorMs);
      }
      return this.#decide(tx, rows, command);
    });
    const answered = await this.#call(decided.call ? [decided.call] : []);
    if (decided.reply) answered.replies.unshift(decided.reply);
    return answered;
  }

  /** Repeats calls whose lease has ended with the same key, and resends replies that were not acknowledged. */
  async sweep() {
    const open = await claim(this.#pool, true, SWEEP_LIMIT, this.#limits.leaseMs);
    const unheard = await claim(this.#pool, false, SWEEP_LIMIT, this.#limits.leaseMs);
    const answered = await this.#call(open);
    for (const found of unheard) {
      answered.replies.push(...found.intent.replies);
      answered.told.push(toldOf(found, found.intent));
    }
    return answered;
  }

  async close(told) {
    for (const each of told) await close(this.#pool, each);
  }

  /** Makes the calls, and the calls that follow from them, until all are settled or left to a sweep. */
  async #call(calls) {
    const answered = { replies: [], told: [] };
    while (calls.length > 0) {
      const done = await Promise.all(
        calls.map(async (call) => {
          const over = call.intent.openedAt.getTime() + this.#limits.keyLifetimeMs <= Date.now();
          const outcome = over
            ? { kind: 'unknown', why: 'its key may be forgotten outside' }
            : await this.#participant.ask(keyOf(call), call.intent.command);
          return this.#transaction(call.sagaId, (tx, rows) => this.#settle(tx, rows, call, outcome));
        }),
      );
      answered.replies.push(...done.flatMap(({ replies }) => replies));
      answered.told.push(...done.flatMap(({ told }) => told));
      calls = done.flatMap(({ more }) => more);
    }
    return answered;
  }

  async #transaction(sagaId, work) {
    for (;;) {
      try {
        return await transaction(this.#pool, async (tx) => work(tx, await SagaRows.lock(tx, sagaId)));
      } catch (failed) {
        if (!(failed instanceof Rival)) throw failed;
      }
    }
  }

  /** Returns { reply }, { call }, or neither. */
  async #decide(tx, rows, command) {
    const { step, direction } = command;
    const [forward, compensation] = [rows.row(step, 'forward'), rows.row(step, 'compensation')];
    const saved = (row, of) => ({ reply: reply(command, row.reply ?? success(`${command.type}.done`, null), row.at, of) });
    switch (admit(forward?.mark, compensation?.mark, direction)) {
      case 'run':
        return this.#run(tx, rows, command);
      case 'wait':
        return this.#wait(rows, command, forward?.mark === 'done' ? 'compensation' : 'forward');
      case 'saved forward':
        // A resolve gets this answer too: the action's own answer, with the action's direction.
        return saved(forward, 'forward');
      case 'saved compensation':
        return saved(compensation, 'compensation');
      case 'refuse and compensate empty':
        await refuse(rows, command);
        return this.#compensateEmpty(rows, command);
      case 'compensate empty':
        return this.#compensateEmpty(rows, command);
      case 'refuse':
        await refuse(rows, command);
        return { reply: reply(command, notDone(command), rows.now) };
      case 'not done':
        return { reply: reply(command, notDone(command), rows.now) };
    }
  }

  async #run(tx, rows, command) {
    const { step, direction } = command;
    const handler = this.#participant.commands[command.type];
    if (!handler) {
      const answer = error(command, 'unknown_command', `there is no command ${command.type} here`);
      return { reply: reply(command, answer, rows.now) };
    }
    await tx.query('SAVEPOINT handler');
    const answer = await handler(tx, command);
    if (!answer) return this.#open(rows, command);
    // The writes of a handler that did not succeed are undone; the barrier's row is kept.
    if (answer.outcome !== 'success') await tx.query('ROLLBACK TO SAVEPOINT handler');
    if (isSaved(command, answer)) {
      await rows.forgetReleased(step, direction);
      await rows.write(step, direction, markOf(answer), answer);
    }
    return { reply: reply(command, answer, rows.now) };
  }

  async #open(rows, command) {
    const { sagaId, step, direction } = command;
    const intent = {
      // The generation is the last part of the key. Only a definite "not done" that is not saved raises it.
      generation: rows.intent(step, direction)?.generation ?? 1,
      state: 'open',
      leaseUntil: after(rows.now, this.#limits.leaseMs),
      openedAt: rows.now,
      command,
    };
    await rows.writeIntent(step, direction, intent);
    await rows.write(step, direction, 'pending');
    return { call: { sagaId, step, direction, intent } };
  }

  /** Stores the command with the open call, and claims the call if its lease has ended. */
  async #wait(rows, command, of) {
    const { sagaId, step, direction } = command;
    const open = rows.intent(step, of);
    if (open?.state !== 'open') {
      const [code, message] = open
        ? ['outcome_unknown', 'the outcome of a call could not be learned in its key\'s lifetime: a person has to look']
        : ['intent_missing', 'an external call\'s intent is not there'];
      return { reply: reply(command, error(command, code, message), rows.now) };
    }
    const intent = { ...open };
    if (direction === of) {
      // The latest attempt gets the answer. The payload stays the one that the key was first used with.
      intent.command = latest({ ...command, payload: open.command.payload }, open.command);
    } else {
      const name = direction === 'compensation' ? 'cancel' : 'resolve';
      intent[name] = latest(command, open[name]);
    }
    const isFree = open.leaseUntil <= rows.now;
    if (isFree) intent.leaseUntil = after(rows.now, this.#limits.leaseMs);
    await rows.writeIntent(step, of, intent);
    return isFree ? { call: { sagaId, step, direction: of, intent } } : {};
  }

  /** Answers a compensation that has nothing to compensate. The saga sees no difference to other compensations. */
  async #compensateEmpty(rows, command) {
    const answer = success(this.#participant.emptyReplies[command.type] ?? `${command.type}.done`, {});
    await rows.write(command.step, 'compensation', 'done', answer);
    return { reply: reply(command, answer, rows.now) };
  }

  async #settle(tx, rows, call, outcome) {
    const { step, direction } = call;
    const open = rows.intent(step, direction);
    // Another process settled the call first, with the same key and therefore with the same outcome.
    if (open?.state !== 'open' || open.generation !== call.intent.generation) return { replies: [], told: [], more: [] };
    if (outcome.kind === 'unknown') return this.#leave(rows, call, open, outcome.why);
    const { command } = open;
    const answer = await this.#participant.settle(tx, command, outcome);
    const saved = isSaved(command, answer);
    if (saved) await rows.write(step, direction, markOf(answer), answer);
    else await rows.release(step, direction);
    const replies = [reply(command, answer, rows.now)];
    const more = [];
    for (const waiting of [open.resolve, open.cancel]) {
      if (!waiting) continue;
      const decided = await this.#decide(tx, rows, waiting);
      if (decided.reply) replies.push(decided.reply);
      if (decided.call) more.push(decided.call);
    }
    // A refusal by a waiting command makes a released call final.
    const isFinal = saved || rows.row(step, direction) !== undefined;
    const generation = open.generation + (saved ? 0 : 1);
    const told = await this.#tell(rows, call, { ...open, generation, state: isFinal ? 'settled' : 'released', replies });
    return { replies, told, more };
  }

  /**
   * Leaves the call to the next sweep, which repeats it with the same key. After the key's lifetime the call is never
   * repeated.
   */
  async #leave(rows, call, open, why) {
    const { step, direction } = call;
    if (rows.now < after(open.openedAt, this.#limits.keyLifetimeMs)) {
      await rows.writeIntent(step, direction, { ...open, leaseUntil: after(rows.now, this.#limits.retryMs) });
      return { replies: [], told: [], more: [] };
    }
    const message = `the outcome of a call is not known, and its key is too old to be repeated: ${why}`;
    const replies = [open.command, open.resolve, open.cancel]
      .filter(Boolean)
      .map((command) => reply(command, error(command, 'outcome_unknown', message), rows.now));
    return { replies, told: await this.#tell(rows, call, { ...open, state: 'expired', replies }), more: [] };
  }

  async #tell(rows, call, intent) {
    const kept = { ...intent, leaseUntil: after(rows.now, this.#limits.leaseMs) };
    await rows.writeIntent(call.step, call.direction, kept);
    return [toldOf(call, kept)];
  }
}

function checkAge(rows, { sagaId }) {
  const began = beganAt(sagaId);
  if (began < rows.floors.ownMs) {
    throw new Undecodable('below_floor', 'the saga is so old that what is known of it may be forgotten here');
  }
  if (began > rows.now.getTime() + AHEAD_LIMIT_MS) {
    throw new Undecodable('id_out_of_window', 'the saga\'s id says that it begins in the future');
  }
}

async function refuse(rows, { step }) {
  await rows.forgetReleased(step, 'forward');
  await rows.write(step, 'forward', 'refused');
}

/**
 * Returns true if the answer is saved. An error is never saved. A failure is saved only if the command says so, and never
 * for a compensation, which is retried.
 */
function isSaved(command, answer) {
  if (answer.outcome === 'failure') return command.saveFailure && command.direction === 'forward';
  return answer.outcome === 'success';
}

const markOf = (answer) => (answer.outcome === 'success' ? 'done' : 'failed');
const after = (time, ms) => new Date(time.getTime() + ms);
const latest = (command, other) => (other === undefined || other === null || command.attempt >= other.attempt ? command : other);
const keyOf = ({ sagaId, step, direction, intent }) => `${sagaId}/${step}/${direction}/${intent.generation}`;
const toldOf = ({ sagaId, step, direction }, { generation, state }) => ({
  sagaId,
  step,
  direction,
  generation,
  isFinal: state === 'settled',
});
