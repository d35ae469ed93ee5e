// A simulated payment gateway. Like real gateways it has idempotency keys, which a saga needs. A repeated key gets its
// first answer and moves no money again, so a caller that received no answer repeats the call with the same key.

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Rules make the gateway fail. The first rule that matches decides, except that after a delay the next rules are
 * evaluated too:
 *   [{ "amountMinor": 1302, "operation": "charge", "effect": "error", "times": 1 }]
 * Effects: "decline"; "error" (definitely not done); "time_out" (done, but the answer is lost); "delay" (of delayMs).
 * `times`: only the first so many calls of an order and operation.
 */
export class SimulatedGateway {
  #pool;
  #settings;
  #seen = new Map();

  /** `pool`: the ledger, which payment-svc's simulated gateway uses too. It stands for another company's database. */
  constructor(pool, settings) {
    this.#pool = pool;
    this.#settings = settings;
  }

  /**
   * Returns an outcome of `kind`: approved (with reference), declined (code, message), failed (message: not done),
   * unknown (why).
   */
  async call(key, request) {
    const late = new AbortController();
    const timeout = sleep(this.#settings.timeoutMs, { kind: 'unknown', why: 'no answer in time' }, { signal: late.signal });
    try {
      return await Promise.race([this.#answer(key, request), timeout]);
    } catch (failed) {
      // The operation may have been carried out or not.
      return { kind: 'unknown', why: failed.message };
    } finally {
      timeout.catch(() => {});
      late.abort();
    }
  }

  async #answer(key, request) {
    const effect = await this.#misbehave(request);
    const { decision, reference, code, message, failedOrder } = this.#decide(key, request, effect);
    const { operation, orderId, amountMinor, currency } = request;
    // Never in a transaction of the participant.
    await this.#pool.query(
      `INSERT INTO gateway_ledger (key, operation, amount_minor, currency, decision, reference, code, message, order_id)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT DO NOTHING`,
      [key, operation, amountMinor, currency, decision, reference, code, message, failedOrder],
    );
    const { rows } = await this.#pool.query('SELECT * FROM gateway_ledger WHERE key = $1', [key]);
    if (effect === 'time_out') return { kind: 'unknown', why: 'the answer was lost' };
    const [first] = rows;
    if (first.operation !== operation || Number(first.amount_minor) !== amountMinor || first.currency !== currency) {
      const why = `key ${key} was used for another payment than ${operation} of order ${orderId}`;
      return { kind: 'declined', code: 'idempotency_conflict', message: why };
    }
    return { kind: first.decision, reference: first.reference, code: first.code, message: first.message };
  }

  #decide(key, { operation, orderId, amountMinor, currency }, effect) {
    if (effect === 'error') return { decision: 'failed', message: 'the gateway is broken', failedOrder: orderId };
    const declined = (message) => ({ decision: 'declined', code: 'payment_declined', message });
    if (effect === 'decline') return declined('the gateway declined');
    const digits = new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits;
    const { limit } = this.#settings;
    if (operation === 'charge' && amountMinor > limit * 10 ** digits) {
      return declined(`the amount is above the limit of ${limit.toFixed(2)} ${currency}`);
    }
    return { decision: 'approved', reference: `node-${createHash('sha256').update(key).digest('hex').slice(0, 32)}` };
  }

  async #misbehave(request) {
    for (const [index, rule] of this.#settings.rules.entries()) {
      const matches = ['operation', 'amountMinor', 'currency'].every((name) => [undefined, request[name]].includes(rule[name]));
      if (!matches || !(await this.#isDue(index, rule, request))) continue;
      if (rule.effect !== 'delay') return rule.effect;
      await sleep(rule.delayMs);
    }
    return undefined;
  }

  /** Failed calls are counted over all processes, other calls by each process. */
  async #isDue(index, rule, { operation, orderId }) {
    if (rule.times === undefined) return true;
    if (rule.effect === 'error') {
      const failed = `SELECT count(*) FROM gateway_ledger WHERE order_id = $1 AND operation = $2 AND decision = 'failed'`;
      const { rows } = await this.#pool.query(failed, [orderId, operation]);
      return Number(rows[0].count) < rule.times;
    }
    const key = `${index}/${operation}/${orderId}`;
    const seen = (this.#seen.get(key) ?? 0) + 1;
    this.#seen.set(key, seen);
    return seen <= rule.times;
  }
}
