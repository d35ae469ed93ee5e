// The page's own script: places orders, follows saga.events over server-sent events, and swaps in the fragments that
// the server renders. No build step, no library.
//
// Every saga's events are numbered without a gap. So what comes twice is dropped by its number, and what is missing,
// after a restart of the orchestrator or a slow moment of this page, shows as a gap and is read from the saga's log.

const $ = (selector, root = document) => root.querySelector(selector);
const { orders, inventory } = document.body.dataset;

/** Sagas on their way that are shown at once; older ones give way. */
const MAX_CARDS = 12;
/** Lines of the event stream, and events remembered so that none is shown twice. */
const MAX_LINES = 200;
const MAX_REMEMBERED = 1_000;
/** How long a step stays before the next one is shown: a saga takes some 20 ms, and nobody can watch that. */
const PACE_MS = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 220;
/** A card that is so far behind catches up at once. */
const MAX_WAITING = 40;
/** A flood of sagas does not become a flood of cards. */
const CARD_EVERY_MS = 150;
const RECONNECT_MS = 1_000;
const POLL_MS = 5_000;
const ASK_WHY_MS = 2_000;

// ---- small things ------------------------------------------------------------------------------------------------

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const short = (id) => "…" + String(id).slice(-8);
const sagaButton = (id) => element("button", { type: "button", class: "link", "data-saga": id, title: id }, element("code", {}, short(id)));

async function json(url, options) {
  const response = await fetch(url, options);
  const body = await response.json().catch(() => ({}));
  if (response.ok) return body;
  const fields = (body.errors || []).map((error) => `${error.field}: ${error.message}`);
  const text = fields.length ? fields.join("; ") : body.detail || body.title || `HTTP ${response.status}`;
  throw Object.assign(new Error(text), { status: response.status });
}

/** Runs `work` soon, however often it is asked for; after slow work it waits the longer. */
function throttled(least_ms, work) {
  let asked = false, busy = false, pause = least_ms;
  const run = async () => {
    asked = false;
    busy = true;
    const began = performance.now();
    try {
      await work();
    } finally {
      pause = Math.max(least_ms, 2 * (performance.now() - began));
      busy = false;
      if (asked) setTimeout(run, pause);
    }
  };
  return () => {
    if (asked) return;
    asked = true;
    if (!busy) setTimeout(run, least_ms);
  };
}

const INSTANT = /\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z/g;
const TO_THE_SECOND = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const TO_THE_MILLISECOND = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit", fractionalSecondDigits: 3 });
const clock = (at) => TO_THE_SECOND.format(new Date(at));
const preciseClock = (at) => TO_THE_MILLISECOND.format(new Date(at));

/** Instants of the API, in the reader's time zone; with the day if it is not today. */
function local(text) {
  return String(text ?? "").replace(INSTANT, (instant) => {
    const at = new Date(instant);
    if (Number.isNaN(at.getTime())) return instant;
    const isToday = at.toDateString() === new Date().toDateString();
    return isToday ? clock(at) : `${at.toLocaleDateString("en-CA")} ${clock(at)}`;
  });
}

function localize(root) {
  for (const node of root.querySelectorAll("[data-instants]")) {
    const walker = document.createTreeWalker(node, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) walker.currentNode.data = local(walker.currentNode.data);
  }
}

function took(from, to) {
  const ms = new Date(to) - new Date(from);
  if (!(ms >= 0)) return "";
  if (ms < 1_000) return `${ms} ms`;
  return ms < 60_000 ? `${(ms / 1_000).toFixed(1)} s` : `${Math.round(ms / 60_000)} min`;
}

// ---- stock -------------------------------------------------------------------------------------------------------

let products = [];
const stockRows = new Map();

async function refreshStock() {
  if (!inventory) return;
  const problem = $("#stock-problem");
  try {
    products = (await json(`${inventory}/stock?limit=50`)).items;
    problem.textContent = products.length ? "" : "There are no products; PUT /stock/{productId} makes one.";
  } catch {
    problem.textContent = "inventory-svc does not answer; the numbers are the last it gave.";
    return;
  }
  showStock();
  offerProducts();
}

function showStock() {
  for (const product of products) {
    let cells = stockRows.get(product.productId);
    if (!cells) {
      cells = ["available", "reserved", "sold"].map((key) => [key, element("td")]);
      stockRows.set(product.productId, cells);
      const name = element("td", { title: product.productId }, product.name || short(product.productId));
      $("#stock tbody").append(element("tr", { "data-product": product.productId }, name, ...cells.map(([, cell]) => cell)));
    }
    for (const [key, cell] of cells) {
      const text = String(product[key]);
      if (cell.textContent === text) continue;
      if (cell.textContent) {
        cell.classList.add("changed");
        setTimeout(() => cell.classList.remove("changed"), 300);
      }
      cell.textContent = text;
    }
  }
}

let hasOffered = false;

/** Options that somebody may be choosing from are not replaced; their texts follow the stock. */
function offerProducts() {
  const select = $("#own select[name=product]");
  if (!select) return;
  for (const product of products) {
    const text = `${product.name || short(product.productId)} (${product.available})`;
    const option = [...select.options].find(({ value }) => value === product.productId);
    if (!option) select.append(element("option", { value: product.productId }, text));
    else if (option.textContent !== text) option.textContent = text;
  }
  if (!hasOffered && products.length) select.value = plentiful().productId;
  hasOffered ||= products.length > 0;
}

const plentiful = () => [...products].sort((a, b) => b.available - a.available)[0];

// ---- orders ------------------------------------------------------------------------------------------------------

const PAYMENT_FIRST = "place-order-payment-first";
/** Above what the simulated gateway pays. */
const TOO_DEAR = 1_500;

function orderOf(kind, fields) {
  if (kind === "own") {
    return {
      items: [{ productId: fields.product.value, quantity: Number(fields.quantity.value), price: Number(fields.price.value) }],
      definition: fields.definition.value,
    };
  }
  const most = plentiful();
  if (!most) throw new Error("inventory-svc has no product to order.");
  const soldOut = products.find((product) => product.available === 0);
  const line = (product, quantity, price) => [{ productId: product.productId, quantity, price }];
  // Without a product at 0, more than there is serves as well.
  const missing = soldOut ? line(soldOut, 1, 10.5) : line(most, most.available + 1, 0.01);
  switch (kind) {
    case "declined": return { items: line(most, 1, TOO_DEAR) };
    case "out_of_stock": return { items: missing };
    case "payment_first": return { items: line(most, 1, 10.5), definition: PAYMENT_FIRST };
    case "refunded": return { items: missing, definition: PAYMENT_FIRST };
    default: return { items: line(most, 1, 10.5) };
  }
}

function answer(text, isBad = false) {
  const node = $("#answer");
  if (!node) return;
  node.classList.toggle("bad", isBad);
  node.textContent = text;
}

async function placeOrder(event) {
  event.preventDefault();
  const form = event.target;
  const button = event.submitter || $("button.primary", form);
  // A second click of a double click is no second order.
  button.disabled = true;
  try {
    const order = await json(`${orders}/orders`, {
      method: "POST",
      headers: { "content-type": "application/json", "idempotency-key": crypto.randomUUID() },
      body: JSON.stringify({ customerId: crypto.randomUUID(), ...orderOf(button.value, form.elements) }),
    });
    answer(`Order ${short(order.id)} is accepted.`);
    expect(order.sagaId);
  } catch (error) {
    const away = error instanceof TypeError;
    answer(away ? `order-svc does not answer at ${orders}, or does not allow this page (http.cors_origins).` : `Not accepted: ${error.message}`, true);
  } finally {
    button.disabled = false;
    button.focus();
  }
}

// ---- sagas on their way ------------------------------------------------------------------------------------------

const cards = new Map();
/** Sagas of this page's orders that have no card yet. */
const expected = new Set();
const definitions = new Map();
let newestCard = 0;

const ENDED = new Set(["completed", "compensated", "abandoned"]);

/** A definition's steps in stages: those of one stage may run side by side. */
function stagesOf(name, version) {
  const key = `${name}@${version}`;
  if (!definitions.has(key)) {
    const loading = json(`/definitions/${encodeURIComponent(name)}?version=${version}`).then(({ steps }) => {
      const depth = new Map();
      for (const step of steps) depth.set(step.name, 1 + Math.max(-1, ...step.after.map((before) => depth.get(before) ?? 0)));
      const stages = [];
      for (const step of steps) (stages[depth.get(step.name)] ??= []).push(step);
      return stages;
    });
    loading.catch(() => definitions.delete(key));
    definitions.set(key, loading);
  }
  return definitions.get(key);
}

function newCard(id, definition, version) {
  makeRoom();
  newestCard = performance.now();
  const parts = {
    state: element("span", { class: "chip" }, "running"),
    took: element("span", { class: "took" }),
    why: element("p", { class: "why" }),
    stages: element("ol", { class: "stages", "aria-label": "Steps" }),
  };
  const header = element("header", {}, sagaButton(id), element("span", {}, definition), parts.state, parts.took);
  const node = element("article", { class: "card running", "data-saga": id, "aria-label": `Saga ${short(id)}, ${definition}` }, header, parts.stages, parts.why);
  const card = {
    id, node, parts, steps: null, seen: 0, waiting: [], playing: false, repairing: false, again: false, mine: expected.delete(id),
    status: "running", turned: false, startedAt: null, cause: "", movedAt: performance.now(),
  };
  cards.set(id, card);
  const box = $("#cards");
  $(".empty", box)?.remove();
  box.prepend(node);
  drawSteps(card, definition, version);
  return card;
}

/** The oldest that has ended goes first, then the oldest; this page's own orders stay longest. */
function makeRoom() {
  while (cards.size >= MAX_CARDS) {
    const all = [...cards.values()];
    const leaving = all.find((card) => ENDED.has(card.status) && !card.mine) || all.find((card) => !card.mine) || all[0];
    cards.delete(leaving.id);
    leaving.node.remove();
  }
}

async function drawSteps(card, definition, version) {
  let stages = [];
  try {
    stages = await stagesOf(definition, version);
  } catch (error) {
    card.parts.why.textContent = `Its steps could not be read: ${error.message}`;
  }
  card.steps = new Map();
  for (const stage of stages) {
    const list = element("ul");
    for (const step of stage) {
      const parts = { state: element("span", { class: "unseen" }), times: element("span", { class: "times" }) };
      const title = `${step.kind}, ${step.participant}`;
      const item = element("li", { class: "step", "data-step": step.name, title }, element("span", { class: "name" }, step.name), parts.times, parts.state);
      card.steps.set(step.name, { item, ...parts });
      list.append(item);
      // A step without a command is done by whoever starts the saga.
      mark(card, step.name, step.command ? "waiting" : "succeeded");
    }
    card.parts.stages.append(element("li", {}, list));
  }
  play(card);
}

const STEP_WORDS = {
  waiting: "not begun", running: "running", queued: "not picked up yet", resolving: "outcome unknown, being asked for", succeeded: "done", failed: "failed",
  retrying: "to be tried again", parked: "needs a person", compensating: "being undone", compensated: "undone",
  skipped: "left out by an operator", kept: "left as it is by an operator",
};

function mark(card, name, state, attempt = 1) {
  const step = card.steps?.get(name);
  if (!step) return;
  step.item.className = `step ${state}`;
  step.item.dataset.state = state;
  step.state.textContent = `, ${STEP_WORDS[state]}`;
  step.times.textContent = attempt > 1 ? `×${attempt}` : "";
}

/** The saga of an order that was placed here. Its first event brings the card, unless that was missed. */
function expect(id) {
  const card = cards.get(id);
  if (card) {
    card.mine = true;
    return;
  }
  expected.add(id);
  if (expected.size > MAX_CARDS) expected.delete(expected.values().next().value);
  setTimeout(() => { if (expected.has(id)) adopt(id); }, ASK_WHY_MS);
}

/** A saga that this page has heard of but has no card for. */
async function adopt(id) {
  if (cards.has(id)) return;
  try {
    const saga = await json(`/sagas/${id}`);
    // Its first event may have been quicker.
    if (!cards.has(id)) repair(newCard(id, saga.definition, saga.definitionVersion));
  } catch {
    // It has not begun; its first event will bring the card.
  }
}

/** One event of the stream. */
function travel(event) {
  let card = cards.get(event.sagaId);
  if (!card) {
    const hasTime = cards.size < MAX_CARDS || performance.now() - newestCard > CARD_EVERY_MS;
    // In the middle of a saga that has no card there is nothing to see.
    const begins = event.sequence === 1 || event.type === "recovered";
    if (!begins || !(hasTime || expected.has(event.sagaId))) return;
    card = newCard(event.sagaId, event.definition, event.definitionVersion);
  }
  if (event.sequence <= card.seen) return;
  if (event.sequence > card.seen + 1) repair(card);
  else enqueue(card, event);
}

/** Reads what was missed from the saga's log. */
async function repair(card) {
  if (card.repairing) {
    card.again = true;
    return;
  }
  card.repairing = true;
  do {
    card.again = false;
    const { events } = await json(`/sagas/${card.id}/events`).catch(() => ({ events: [] }));
    for (const event of events) {
      if (event.sequence > card.seen) enqueue(card, event);
    }
  } while (card.again);
  card.repairing = false;
}

function enqueue(card, event) {
  card.seen = event.sequence;
  card.movedAt = performance.now();
  card.waiting.push(event);
  play(card);
}

/** Shows what happened, one visible change after the other. */
function play(card) {
  if (card.playing || !card.steps) return;
  while (card.waiting.length) {
    const event = card.waiting.shift();
    const isVisible = paint(card, event);
    if (isVisible && PACE_MS && card.waiting.length && card.waiting.length < MAX_WAITING) {
      card.playing = true;
      setTimeout(() => { card.playing = false; play(card); }, PACE_MS);
      return;
    }
  }
}

const SENT = { forward: "running", compensation: "compensating", resolve: "resolving" };

/** What an event changes; whether one can see it. */
function paint(card, event) {
  const { type, step, attempt } = event;
  switch (type) {
    case "started": case "recovered": card.startedAt = event.at; return true;
    case "command_sent": mark(card, step, SENT[event.direction], attempt); return true;
    case "command_queued": mark(card, step, "queued", attempt); return true;
    case "command_picked_up": mark(card, step, SENT[event.direction], attempt); return false;
    case "step_succeeded": {
      // A compensation's success has an event of its own.
      if (event.direction !== "compensation") mark(card, step, "succeeded");
      return true;
    }
    case "step_failed": case "step_not_done": mark(card, step, "failed"); return true;
    case "step_errored": case "step_timed_out": mark(card, step, "retrying", attempt); explain(card, reason(event)); return true;
    case "resolve_started": mark(card, step, "resolving"); explain(card, reason(event)); return true;
    case "step_compensated": mark(card, step, "compensated"); return true;
    case "step_completed": mark(card, step, "succeeded"); return true;
    case "step_skipped": mark(card, step, "skipped"); return true;
    case "compensation_skipped": mark(card, step, "kept"); return true;
    case "deadline_passed": explain(card, "its deadline has passed"); return false;
    case "compensation_started":
      card.turned = true;
      card.cause = reason(event);
      become(card, "compensating");
      explain(card, card.cause);
      return true;
    case "parked":
      mark(card, step, "parked");
      become(card, "parked");
      explain(card, `needs a person: ${reason(event)}`);
      return true;
    case "unparked":
      become(card, card.turned ? "compensating" : "running");
      explain(card, card.cause);
      return true;
    case "completed": case "compensated": case "abandoned": end(card, event); return true;
    default: return false;
  }
}

function reason({ cause, reason: why, fault, type }) {
  const found = cause || fault || (typeof why === "object" ? why : null);
  if (!found) return type === "step_timed_out" ? "no answer in time" : "";
  return found.message ? `${found.code}: ${found.message}` : found.code;
}

function become(card, status) {
  card.status = status;
  card.node.className = `card ${status}${card.turned ? " turned" : ""}`;
  card.parts.state.textContent = status;
}

function explain(card, text) {
  const localized = local(text);
  if (card.parts.why.textContent !== localized) card.parts.why.textContent = localized;
}

function end(card, event) {
  become(card, event.type);
  card.parts.took.textContent = card.startedAt ? took(card.startedAt, event.at) : "";
  explain(card, event.type === "abandoned" ? `abandoned: ${event.reason}` : card.turned ? `${card.cause}; everything is put back` : "");
  if (card.mine) answer(`Order ${short(card.id)}: ${event.type}${event.cause ? ` (${event.cause.code})` : ""}.`);
}

/** A saga that has not moved for a while is asked why. */
async function askWhy(card) {
  const isIdle = !card.waiting.length && performance.now() - card.movedAt > ASK_WHY_MS / 2;
  if (!isIdle || ENDED.has(card.status)) return;
  const saga = await json(`/sagas/${card.id}`).catch(() => null);
  if (!saga) return;
  if (saga.version > card.seen) return repair(card);
  const { kind, step, text, attempt } = saga.waitingOn;
  if (kind === "queued") mark(card, step, "queued", attempt);
  if (kind !== "nothing") explain(card, text);
}

/** After an interruption: what the cards missed, and sagas that are live by now. */
async function catchUp() {
  for (const card of cards.values()) {
    if (!ENDED.has(card.status)) repair(card);
  }
  for (const id of expected) adopt(id);
  const lists = await Promise.all(["parked", "compensating", "running"].map((status) =>
    json(`/sagas?status=${status}&limit=${MAX_CARDS / 3}`).then(({ sagas }) => sagas).catch(() => [])));
  const oldestFirst = lists.flat().sort((a, b) => (a.id < b.id ? -1 : 1));
  for (const { id } of oldestFirst) {
    if (cards.size < MAX_CARDS) await adopt(id);
  }
}

// ---- the event stream --------------------------------------------------------------------------------------------

const remembered = new Set();
let lines = [];

function isNew(id) {
  if (!id || remembered.has(id)) return !id;
  remembered.add(id);
  if (remembered.size > MAX_REMEMBERED) remembered.delete(remembered.values().next().value);
  return true;
}

const TONES = {
  completed: "good", step_succeeded: "good", step_completed: "good", step_skipped: "undo", compensation_skipped: "bad", abandoned: "bad", compensated: "undo", compensation_started: "undo", step_compensated: "undo", step_errored: "undo", step_timed_out: "undo",
  command_queued: "undo", resolve_started: "undo", step_failed: "bad", parked: "bad", deadline_passed: "bad",
};

function line(event) {
  const what = [
    event.step, event.direction === "forward" ? null : event.direction, event.attempt > 1 ? `attempt ${event.attempt}` : null,
    (event.fault || event.cause || event.reason || {}).code,
  ].filter(Boolean).join(" · ");
  return element("li", { "data-event": `${event.sagaId}/${event.sequence}`, class: event.type }, element("time", { datetime: event.at }, preciseClock(event.at)), sagaButton(event.sagaId),
    element("span", { class: TONES[event.type] }, event.type), element("span", { class: "what" }, what));
}

const gap = (text) => element("li", {}, element("time", {}, preciseClock(Date.now())), element("span", { class: "gap" }, text));

function write(make) {
  lines.push(make);
  if (lines.length > MAX_LINES) lines.shift();
  flushSoon();
}

const flushSoon = throttled(60, () => {
  const stream = $("#stream");
  stream.prepend(...lines.map((make) => make()).reverse());
  lines = [];
  while (stream.childElementCount > MAX_LINES) stream.lastElementChild.remove();
});

let source = null;
let wasLost = false;

function connection(text, className = "") {
  const node = $("#connection");
  if (node.textContent !== text) node.textContent = text;
  node.className = className;
}

function follow() {
  if (source) return;
  source = new EventSource("/events");
  source.onopen = () => {
    connection("live", "live");
    if (wasLost) write(() => gap("connected again; what happened meanwhile stands in the sagas' own logs"));
    wasLost = false;
    catchUp();
    refreshSoon();
  };
  source.onerror = () => {
    connection("not connected, trying again", "lost");
    wasLost = true;
    // The browser tries again by itself, unless it was answered with an error.
    if (source.readyState === EventSource.CLOSED) {
      unfollow();
      setTimeout(() => { if (!document.hidden) follow(); }, RECONNECT_MS);
    }
  };
  source.addEventListener("message", ({ data, lastEventId }) => {
    if (!isNew(lastEventId)) return;
    const event = JSON.parse(data);
    write(() => line(event));
    travel(event);
    if (event.sagaId === shown) showSoon();
    refreshSoon();
  });
  source.addEventListener("lagged", ({ data }) => {
    write(() => gap(`${JSON.parse(data).missed} events came too fast for this page`));
    catchUp();
  });
}

function unfollow() {
  source?.close();
  source = null;
}

// ---- fragments the server renders --------------------------------------------------------------------------------

let status = $(".filters [aria-current]")?.dataset.status ?? "";
const fragments = new Map();

async function swap(selector, url) {
  const box = $(selector);
  try {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    const html = await response.text();
    box.classList.remove("stale");
    box.removeAttribute("title");
    if (fragments.get(selector) === html) return;
    fragments.set(selector, html);
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.saga : null;
    box.innerHTML = html;
    localize(box);
    if (focused) $(`button[data-saga="${focused}"]`, box)?.focus();
  } catch {
    box.classList.add("stale");
    box.title = "These are the last numbers that the orchestrator gave.";
  }
}

const refreshList = () => swap("#sagas", `/page/sagas?status=${encodeURIComponent(status)}`);
const refresh = () => Promise.all([swap("#overview", "/page/overview"), refreshList(), refreshStock()]);
const refreshSoon = throttled(300, refresh);

function filter(event) {
  const link = event.target.closest("a[data-status]");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  event.preventDefault();
  status = link.dataset.status;
  history.replaceState(null, "", status ? `?status=${status}` : location.pathname);
  for (const other of $(".filters").children) {
    if (other === link) other.setAttribute("aria-current", "true");
    else other.removeAttribute("aria-current");
  }
  refreshList();
}

// ---- one saga ----------------------------------------------------------------------------------------------------

const dialog = $("#detail");
let shown = null;
let shownText = "";

async function show() {
  const id = shown;
  if (!id) return;
  let nodes, title, text;
  try {
    const [saga, log] = await Promise.all([json(`/sagas/${id}`), json(`/sagas/${id}/events`)]);
    title = `${saga.definition} v${saga.definitionVersion}`;
    text = JSON.stringify([saga, log]);
    nodes = () => describe(saga, log.events);
  } catch (error) {
    title = short(id);
    text = error.message;
    nodes = () => [element("p", { class: "problem" }, error.message)];
  }
  if (id !== shown || text === shownText) return;
  shownText = text;
  $("#detail-title").textContent = title;
  $(".content", dialog).replaceChildren(...nodes());
}

const showSoon = throttled(300, show);

async function open(id) {
  shown = id;
  shownText = "";
  await show();
  if (shown === id && !dialog.open) dialog.showModal();
}

function describe(saga, events) {
  const fault = ({ step, code, message }) => `${step ? `${step}: ` : ""}${code}: ${message}`;
  const facts = [
    ["Status", element("span", { class: saga.status }, element("span", { class: "chip" }, saga.status))],
    ["What it waits for", saga.endedAt ? null : local(saga.waitingOn.text)],
    ["Why it turned round", saga.cause && fault(saga.cause)],
    ["Why it was abandoned", saga.abandoned],
    ["What can be asked of it", saga.legalActions.map(({ action, step, compensation }) => [action, compensation ? "the compensation of" : "", step].filter(Boolean).join(" ")).join(", ")],
    ["Business key", saga.businessKey],
    ["Id", element("code", {}, saga.id)],
    ["Correlation id", element("code", {}, saga.correlationId)],
    ["Started", local(saga.startedAt)],
    ["Ended", saga.endedAt && `${local(saga.endedAt)}, after ${took(saga.startedAt, saga.endedAt)}`],
    ["Deadline", saga.endedAt ? null : local(saga.deadlineAt)],
  ].filter(([, value]) => value);
  return [
    element("dl", { class: "facts" }, ...facts.flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)])),
    table("Steps", ["Step", "Kind", "Participant", "State", "Attempts"], saga.steps.map((step) => [
      step.name, step.kind, step.participant, step.state.replace("_", " "), attempts(step)])),
    table("Log", ["Time", "Event", "Step", "Direction", "Detail"], events.map((event) => [
      preciseClock(event.at), event.type, event.step || "", event.attempt ? `${event.direction} ${event.attempt}` : "",
      local([reason(event) || (typeof event.reason === "string" ? event.reason : ""), event.verdict?.warning].filter(Boolean).join("; "))])),
  ];
}

function attempts(step) {
  if (!step.attempts.length) return step.doneByStarter ? "done by the starter" : "";
  const cell = element("div");
  for (const one of step.attempts) {
    const end = one.endedAt ? `${one.outcome.replace("_", " ")} after ${took(one.sentAt, one.endedAt)}` : one.queuedAt && !one.pickedUpAt ? "not picked up yet" : "no answer yet";
    const why = one.fault ? `: ${one.fault.code}: ${one.fault.message}` : "";
    cell.append(element("div", {}, `${one.direction} ${one.attempt}: ${end}${why}`));
  }
  return cell;
}

function table(title, names, rows) {
  const head = element("tr", {}, ...names.map((name) => element("th", { scope: "col" }, name)));
  const body = rows.map((cells) => element("tr", {}, ...cells.map((cell) => element("td", {}, cell))));
  return element("div", { class: "scroll" }, element("table", {}, element("caption", {}, title), element("thead", {}, head), element("tbody", {}, ...body)));
}

// ---- begin -------------------------------------------------------------------------------------------------------

for (const form of document.querySelectorAll(".place form")) form.addEventListener("submit", placeOrder);
$(".filters").addEventListener("click", filter);
document.addEventListener("click", ({ target }) => {
  const button = target.closest("button[data-saga]");
  if (button) open(button.dataset.saga);
  // The backdrop belongs to the dialog, its content does not.
  if (target === dialog) dialog.close();
});
dialog.addEventListener("close", () => { shown = null; });

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    unfollow();
    connection("paused");
    wasLost = true;
  } else {
    follow();
  }
});

const whileVisible = (ms, work) => setInterval(() => { if (!document.hidden) work(); }, ms);
whileVisible(POLL_MS, refresh);
whileVisible(ASK_WHY_MS, () => {
  for (const card of cards.values()) askWhy(card);
  if (shown) showSoon();
});

localize(document);
refreshStock();
follow();
