// The business: `payment.charge` and `payment.refund`. Handlers run in the barrier's transaction, so they need no thought
// about duplicates, late commands, or refunds of what was never charged.

import { error, failure, success } from './message.js';

/** With the same key, before it counts as not known. All of them must fit into the group's session (participant.js). */
const TRIES = 3;
const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
/** Another command's call is open; it passes. */
const OPEN = new Set(['charging', 'refunding']);
const CURRENCIES = new Set(Intl.supportedValuesOf('currency'));

export function createPayments(gateway) {
  return {
    commands: { 'payment.charge': charge, 'payment.refund': refund },
    emptyReplies: { 'payment.refund': 'payment.refunded' },

    async ask(call) {
      let outcome;
      for (let tries = 0; tries < TRIES; tries += 1) {
        outcome = await gateway.call(call.key, call.request);
        if (outcome.kind !== 'unknown') break;
      }
      return outcome;
    },

    settle,
  };
}

/** What is wrong with a charge, if anything. */
function mistakeIn(payload) {
  if (!UUID.test(payload?.orderId)) return 'orderId is not a UUID';
  if (!UUID.test(payload.customerId)) return 'customerId is not a UUID';
  // Beyond 2^53 a number of JSON is not what was sent any more.
  if (!Number.isSafeInteger(payload.amountMinor) || payload.amountMinor <= 0) {
    return 'amountMinor is not a positive whole number';
  }
  return CURRENCIES.has(payload.currency) ? undefined : 'currency is not one of ISO 4217';
}

async function charge(tx, command) {
  const mistake = mistakeIn(command.payload);
  // A failure, not an error: it will not get better by trying again.
  if (mistake) return { answer: failure('payment.failed', 'invalid_payload', mistake) };
  const { orderId, customerId, amountMinor, currency } = command.payload;
  // An order that was charged, by another command or another saga, is not charged again.
  const { rowCount } = await tx.query(
    `INSERT INTO payment_node.payment AS known (order_id, customer_id, amount_minor, currency, status)
     VALUES ($1, $2, $3, $4, 'charging')
     ON CONFLICT (order_id) DO UPDATE SET customer_id = $2, amount_minor = $3, currency = $4, status = 'charging'
     WHERE known.status IN ('declined', 'charge_failed')`,
    [orderId, customerId, amountMinor, currency],
  );
  if (rowCount === 1) return { call: { request: { operation: 'charge', orderId, amountMinor, currency } } };
  const { status } = await find(tx, orderId);
  if (OPEN.has(status)) return { answer: error(command, 'payment_busy', `order ${orderId} is ${status}`) };
  return { answer: failure('payment.failed', 'already_charged', `order ${orderId} is ${status} already`) };
}

async function refund(tx, command) {
  const orderId = command.payload?.orderId;
  if (!UUID.test(orderId)) return { answer: failure('payment.failed', 'invalid_payload', 'orderId is not a UUID') };
  const payment = await find(tx, orderId);
  switch (payment?.status) {
    case undefined:
    case 'declined':
    case 'charge_failed':
      return { answer: success('payment.refunded', moved({ orderId, amountMinor: 0, currency: '' }, '')) };
    case 'refunded':
      return { answer: success('payment.refunded', moved(payment, payment.refundReference)) };
    case 'charging':
    case 'refunding':
      return { answer: error(command, 'payment_busy', `order ${orderId} is ${payment.status}`) };
  }
  const { amountMinor, currency } = payment;
  await setStatus(tx, orderId, 'refunding');
  return { call: { request: { operation: 'refund', orderId, amountMinor, currency } } };
}

/** What the gateway's answer means for the payment's row, and for the saga. */
async function settle(tx, call, outcome) {
  const { request } = call;
  const charging = request.operation === 'charge';
  switch (outcome.kind) {
    case 'approved':
      await setStatus(tx, request.orderId, charging ? 'charged' : 'refunded', outcome.reference);
      return success(charging ? 'payment.success' : 'payment.refunded', moved(request, outcome.reference));
    case 'declined':
      await setStatus(tx, request.orderId, charging ? 'declined' : 'refund_failed');
      return failure('payment.failed', outcome.code, outcome.message);
    default:
      await setStatus(tx, request.orderId, charging ? 'charge_failed' : 'refund_failed');
      return error(call, 'gateway_error', outcome.message);
  }
}

const moved = ({ orderId, amountMinor, currency }, gatewayReference) => ({ orderId, amountMinor, currency, gatewayReference });

/** Locked: what is decided from it stays true until the transaction's end. */
async function find(tx, orderId) {
  const { rows } = await tx.query('SELECT * FROM payment_node.payment WHERE order_id = $1 FOR UPDATE', [orderId]);
  if (rows.length === 0) return undefined;
  const [row] = rows;
  return {
    orderId,
    status: row.status,
    // pg gives bigint as a text, because a number might not hold it. Ours were checked when they came.
    amountMinor: Number(row.amount_minor),
    currency: row.currency,
    refundReference: row.refund_reference,
  };
}

async function setStatus(tx, orderId, status, reference = null) {
  await tx.query(
    `UPDATE payment_node.payment SET status = $2,
       charge_reference = CASE WHEN $2 = 'charged' THEN $3 ELSE charge_reference END,
       refund_reference = CASE WHEN $2 = 'refunded' THEN $3 ELSE refund_reference END
     WHERE order_id = $1`,
    [orderId, status, reference],
  );
}
