// The business: `payment.charge` and `payment.refund`. Handlers run in the barrier's transaction, so they need not handle
// duplicates, late commands, or refunds without a charge. A handler returns an answer. If the gateway must be called, it
// records this in the payment's row instead and returns nothing.

import { error, failure, success } from './message.js';

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const CURRENCIES = new Set(Intl.supportedValuesOf('currency'));
/** The maximum amount: fifteen digits. A JSON number with more digits may lose precision, however it is written. */
const AMOUNT_MAX = 1e15;
/** The maximum number of entries in a payment's history: the first, and the latest ones. */
const HISTORY_MAX = 50;

export function createPayments(pool, gateway) {
  return {
    commands: { 'payment.charge': charge, 'payment.refund': refund },
    emptyReplies: { 'payment.refund': 'payment.refunded' },

    async ask(key, command) {
      const { orderId } = command.payload;
      if (command.type === 'payment.charge') {
        const { amountMinor, currency } = command.payload;
        return gateway.call(key, { operation: 'charge', orderId, amountMinor, currency });
      }
      const { amountMinor, currency } = await find(pool, orderId);
      return gateway.call(key, { operation: 'refund', orderId, amountMinor, currency });
    },

    settle,
  };
}

/** Returns the mistake in a charge, if any. */
function mistakeIn(payload) {
  if (!UUID.test(payload?.orderId)) return 'orderId is not a UUID';
  if (!UUID.test(payload.customerId)) return 'customerId is not a UUID';
  // JSON.parse reads 100.0 and 1e2 as 100.
  const { amountMinor } = payload;
  if (!Number.isInteger(amountMinor) || amountMinor < 1 || amountMinor > AMOUNT_MAX) {
    return `amountMinor is not a whole number from 1 to ${AMOUNT_MAX}`;
  }
  return CURRENCIES.has(payload.currency) ? undefined : 'currency is not one of ISO 4217';
}

/** Returns the identity that holds a payment while its call is open: the command, without its attempt. */
const callerOf = ({ sagaId, step, direction }) => `${sagaId}/${step}/${direction}`;
const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7/i;

/**
 * Returns the refusal of a command for a payment that another saga holds. A payment is held by the saga that made it. An
 * order without a payment is held by the saga that its id names (order-svc gives both one id, a UUIDv7). The barrier
 * answers the compensation of a saga whose charge was refused; a refund that gets here has a charge, so it must not
 * succeed without refunding that charge.
 */
export function refusalOfStranger(payment, orderId, { sagaId }) {
  const holder = payment?.caller.split('/')[0] ?? (UUID_V7.test(orderId) ? orderId.toLowerCase() : sagaId);
  if (holder === sagaId) return undefined;
  return failure('payment.failed', 'order_of_another_saga', `order ${orderId} is held by saga ${holder}`);
}

async function charge(tx, command) {
  const mistake = mistakeIn(command.payload);
  // A failure and not an error, because a retry cannot help.
  if (mistake) return failure('payment.failed', 'invalid_payload', mistake);
  const { orderId, customerId, amountMinor, currency } = command.payload;
  const payment = await find(tx, orderId, 'FOR NO KEY UPDATE');
  const refused = refusalOfStranger(payment, orderId, command) ?? (payment && refusalOf(payment, command));
  if (refused) return refused;
  const values = [orderId, customerId, amountMinor, currency, callerOf(command), entry('charge', 'requested')];
  const { rowCount } = await tx.query(payment ? CHARGE_AGAIN : CHARGE, payment ? [...values, HISTORY_MAX] : values);
  // Another saga's charge of the same order was first: it is committed now, and can be read.
  return rowCount === 1 ? undefined : charge(tx, command);
}

/** Returns the reason why an order with a payment is not charged, if there is one. */
function refusalOf(payment, command) {
  const { orderId, status } = payment;
  switch (status) {
    case 'declined':
    case 'charge_failed':
      return undefined;
    case 'charging':
      return payment.caller === callerOf(command) ? undefined : busy(command, orderId);
    default:
      return failure('payment.failed', 'already_charged', `order ${orderId} was charged already, its payment is ${status}`);
  }
}

async function refund(tx, command) {
  const orderId = command.payload?.orderId;
  if (!UUID.test(orderId)) return failure('payment.failed', 'invalid_payload', 'orderId is not a UUID');
  const payment = await find(tx, orderId, 'FOR NO KEY UPDATE');
  const refused = refusalOfStranger(payment, orderId, command);
  if (refused) return refused;
  if (!payment) return success('payment.refunded', moved({ orderId, amountMinor: 0, currency: '' }));
  switch (payment.status) {
    case 'declined':
    case 'charge_failed':
      return success('payment.refunded', moved({ ...payment, amountMinor: 0 }));
    case 'refunded':
      return success('payment.refunded', moved(payment, payment.refundReference));
    case 'charging':
      return busy(command, orderId);
    case 'refunding':
      if (payment.caller !== callerOf(command)) return busy(command, orderId);
  }
  const asked = { status: 'refunding', caller: callerOf(command), entry: entry('refund', 'requested') };
  await change(tx, orderId, asked);
  return undefined;
}

/** An error, so that the command is retried: the other command's call will be settled. */
const busy = (command, orderId) => error(command, 'payment_busy', `a call for order ${orderId} is open for another command`);

/** Writes the gateway's answer to the payment's row, and returns the saga's answer. */
async function settle(tx, command, outcome) {
  const { orderId } = command.payload;
  const operation = command.type === 'payment.charge' ? 'charge' : 'refund';
  const payment = await find(tx, orderId, 'FOR NO KEY UPDATE');
  if (outcome.kind === 'approved') {
    const { reference } = outcome;
    const [status, type] = operation === 'charge' ? ['charged', 'payment.success'] : ['refunded', 'payment.refunded'];
    const done = { status, [`${operation}Reference`]: reference, entry: entry(operation, 'succeeded', { reference }) };
    await change(tx, orderId, done);
    return success(type, moved(payment, reference));
  }
  const declined = outcome.kind === 'declined';
  const code = declined ? outcome.code : 'gateway_error';
  const { message } = outcome;
  const status = operation === 'refund' ? 'refund_failed' : declined ? 'declined' : 'charge_failed';
  const fault = { code, message };
  await change(tx, orderId, { status, fault, entry: entry(operation, declined ? 'declined' : 'failed', fault) });
  return declined ? failure('payment.failed', code, message) : error(command, code, message);
}

const moved = ({ orderId, amountMinor, currency }, gatewayReference = '') => ({
  orderId,
  amountMinor,
  currency,
  gatewayReference: gatewayReference ?? '',
});

/** Returns an entry of the payment's history. */
const entry = (operation, outcome, more = {}) => JSON.stringify([{ at: new Date().toISOString(), operation, outcome, ...more }]);

/** Reads a payment. `lock` locks its row, so that decisions based on it hold until the end of the transaction. */
async function find(db, orderId, lock = '') {
  const { rows } = await db.query(`SELECT * FROM payment WHERE order_id = $1 ${lock}`, [orderId]);
  if (rows.length === 0) return undefined;
  const [row] = rows;
  return {
    orderId: row.order_id,
    status: row.status,
    caller: row.caller,
    // pg returns bigint as text, because a number might not hold it. These amounts were checked on receipt.
    amountMinor: Number(row.amount_minor),
    currency: row.currency,
    refundReference: row.refund_reference,
  };
}

const CHARGE = `INSERT INTO payment (order_id, customer_id, amount_minor, currency, status, caller, history)
  VALUES ($1, $2, $3, $4, 'charging', $5, $6::jsonb) ON CONFLICT DO NOTHING`;

const APPENDED = `CASE WHEN jsonb_array_length(history) >= $7 THEN history - 1 ELSE history END || $6::jsonb`;

const CHARGE_AGAIN = `UPDATE payment SET customer_id = $2, amount_minor = $3, currency = $4, status = 'charging', caller = $5,
    charge_reference = NULL, refund_reference = NULL, fault_code = NULL, fault_message = NULL, history = ${APPENDED},
    updated_at = clock_timestamp()
  WHERE order_id = $1`;

/** Writes the given fields. A fault is removed unless it is the latest event. */
async function change(tx, orderId, { status, caller = null, chargeReference = null, refundReference = null, fault, entry: line }) {
  await tx.query(
    `UPDATE payment SET status = $2, caller = coalesce($3, caller), charge_reference = coalesce($4, charge_reference),
       refund_reference = coalesce($5, refund_reference), fault_code = $8, fault_message = $9, history = ${APPENDED},
       updated_at = clock_timestamp()
     WHERE order_id = $1`,
    [orderId, status, caller, chargeReference, refundReference, line, HISTORY_MAX, fault?.code, fault?.message],
  );
}
