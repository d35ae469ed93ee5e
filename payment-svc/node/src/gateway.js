// A simulated payment gateway. Real ones have what makes it usable in a saga: an idempotency key. A key that comes
// again gets its first answer, and moves no money again; so whoever did not hear an answer asks with the same key.

import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Rules make it misbehave; the first that matches decides, except that after a delay the next ones count too:
 *   [{ "amountMinor": 1302, "operation": "charge", "effect": "error", "times": 1 }]
 * Effects: "decline"; "error" (definitely not done); "time_out" (done, but the answer is lost); "delay" (of delayMs).
 * `times`: only the first so many calls of an order and operation.
 */
export class SimulatedGateway {
  #pool;
  #settings;
  #seen = new Map();

  constructor(pool, settings) {
    this.#pool = pool;
    this.#settings = settings;
  }

  /** `kind`: approved (with reference), declined (code, message), failed (message: not done), unknown (why). */
  async call(key, request) {
    const late = new AbortController();
    const timeout = sleep(this.#settings.timeoutMs, { kind: 'unknown', why: 'no answer in time' }, { signal: late.signal });
    try {
      return await Promise.race([this.#answer(key, request), timeout]);
    } catch (failed) {
      // It may have been done, or not.
      return { kind: 'unknown', why: failed.message };
    } finally {
      timeout.catch(() => {});
      late.abort();
    }
  }

  async #answer(key, request) {
    const effect = await this.#misbehave(request);
    const decided = JSON.stringify(this.#decide(key, request, effect));
    const { operation, amountMinor, currency } = request;
    // Its own database, never in a transaction of ours.
    await this.#pool.query(
      `INSERT INTO payment_node.gateway_ledger (key, operation, amount_minor, currency, answer)
       VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
      [key, operation, amountMinor, currency, decided],
    );
    const { rows } = await this.#pool.query('SELECT answer FROM payment_node.gateway_ledger WHERE key = $1', [key]);
    if (effect === 'time_out') return { kind: 'unknown', why: 'the answer was lost' };
    return rows[0].answer;
  }

  #decide(key, { operation, amountMinor, currency }, effect) {
    if (effect === 'error') return { kind: 'failed', message: 'the gateway is broken' };
    const declined = (message) => ({ kind: 'declined', code: 'payment_declined', message });
    if (effect === 'decline') return declined('the gateway declined');
    const digits = new Intl.NumberFormat('en', { style: 'currency', currency }).resolvedOptions().maximumFractionDigits;
    const { limit } = this.#settings;
    if (operation === 'charge' && amountMinor > limit * 10 ** digits) {
      return declined(`the amount is above the limit of ${limit.toFixed(2)} ${currency}`);
    }
    return { kind: 'approved', reference: `node-${createHash('sha256').update(key).digest('hex').slice(0, 32)}` };
  }

  async #misbehave(request) {
    for (const [index, rule] of this.#settings.rules.entries()) {
      const matches = ['operation', 'amountMinor', 'currency'].every((name) => [undefined, request[name]].includes(rule[name]));
      if (!matches || !this.#isDue(index, rule, request)) continue;
      if (rule.effect !== 'delay') return rule.effect;
      await sleep(rule.delayMs);
    }
    return undefined;
  }

  #isDue(index, rule, request) {
    if (rule.times === undefined) return true;
    const key = `${index}/${request.operation}/${request.orderId}`;
    const seen = (this.#seen.get(key) ?? 0) + 1;
    this.#seen.set(key, seen);
    return seen <= rule.times;
  }
}
