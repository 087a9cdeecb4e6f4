// The page at `/`: trades and new tokens as they happen, and any topic that the user chooses.
// Anyone can choose names on the chain, so names are only ever set as textContent. Amounts stay strings and BigInt.

import { Client } from "/client/headrace.js";

const TRADES_MAX = 30, TOKENS_MAX = 12, RAW_MAX = 40, PROGRAMS_MAX = 12;
const LOOKBACK = 25; // most earlier messages of a topic that are shown when it is first followed

// The text after # never leaves the browser. It is removed from the address, so that it is not copied with it.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) history.replaceState(null, "", location.pathname);

// ---- State ----------------------------------------------------------------------------------------------------------

// Entries are newest first and bounded; `changed` entries are redrawn with the next animation frame.
const trades = [], tokens = [];
const recent = new Map(); // topic → frames, newest first
const gaps = new Map(); // gap id → state
const perProgram = new Map();
const perSecond = new Array(60).fill(0);
let tradeCount = 0, tokenCount = 0, retractCount = 0, slot = null, chosen = null, paused = false;

function add(entries, max, entry) {
  entries.unshift({ changed: true, element: null, ...entry });
  entries.length = Math.min(entries.length, max);
}

/** Takes a frame. `when`: "earlier" (before the topic was followed), "caught up" (missed meanwhile) or "live". */
function take(frame, when) {
  const { type, topic, data } = frame;
  if (when === "live") perSecond[perSecond.length - 1] += 1;
  if (!recent.has(topic)) recent.set(topic, []);
  add(recent.get(topic), RAW_MAX, { frame });
  if (followed.has(topic)) {
    if (type === "event") takeEvent(frame, when);
    else if (type === "promote") mark(frame, (told) => told.chain.slot === data.slot, data.commitment);
    else if (type === "retract") mark(frame, (told) => data.event_ids.includes(told.event_id), "retracted");
    else if (type === "gap") takeGap(data);
    else if (type === "lag") notice(topic, `${topic}: this page was too slow for ${data.dropped} messages.`);
    else if (type === "not_recovered") takeLoss(frame);
    if (type === "retract") retractCount += data.event_ids.length;
  }
  redraw();
}

function takeEvent(frame, when) {
  const { data, chain } = frame;
  const entry = { frame, when, at_ms: Date.now(), state: chain.commitment };
  if (data.type !== "Slot" || data.status === "processed") slot = chain.slot;
  if (data.type === "Trade") {
    tradeCount += 1;
    perProgram.set(data.program, (perProgram.get(data.program) ?? 0) + 1);
    add(trades, TRADES_MAX, entry);
  } else if (data.type === "TokenCreated") {
    tokenCount += 1;
    add(tokens, TOKENS_MAX, entry);
  }
}

/** Marks entries that came earlier on the same topic and that a `promote` or `retract` concerns. */
function mark({ topic, epoch }, concerns, state) {
  for (const entry of [...trades, ...tokens]) {
    const told = entry.frame;
    if (told?.topic === topic && told.epoch === epoch && entry.state !== "retracted" && concerns(told)) {
      Object.assign(entry, { state, changed: true });
    }
  }
}

const GAP_WORDS = { open: "being refilled", backfilled: "refilled, nothing is missing", unrecoverable: "can't be had" };

/** Takes a gap, which comes on every topic that it concerns, and comes again when it is closed. */
function takeGap({ gap_id, from_slot, to_slot, state }) {
  gaps.set(gap_id, state);
  notice(gap_id, `The node missed slots ${from_slot} to ${to_slot}: ${GAP_WORDS[state] ?? state}.`);
}

/** Takes a failed recovery, which comes on every topic. After a restart of the server or recording the log is new. */
function takeLoss({ before, now }) {
  const anew = now.epoch !== before.epoch || BigInt(now.offset) < BigInt(before.offset);
  notice(now.epoch, anew ? "A new log begins here." : "Too long away: some messages can't be had any more.");
}

/** Shows a line among the trades; a later notice about the same subject replaces its text. */
function notice(about, text) {
  const known = trades.find((entry) => entry.notice && entry.about === about);
  if (known) Object.assign(known, { notice: text, changed: true });
  else add(trades, TRADES_MAX, { notice: text, about });
}

// ---- The page -------------------------------------------------------------------------------------------------------

const $ = (id) => document.getElementById(id);

function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function short(text) {
  return text.length > 12 ? `${text.slice(0, 4)}…${text.slice(-4)}` : text;
}

/** Shows a key or signature: shortened, whole on hover, copied on click. */
function copyable(text) {
  const button = element("button", "copy", short(text));
  Object.assign(button, { type: "button", title: text, ariaLabel: `Copy ${text}` });
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.classList.add("done");
    } catch {
      prompt("Copy:", text); // pages over plain HTTP can't use the clipboard
    }
  };
  return button;
}

function grouped(integer) {
  return /^\d+$/.test(integer) ? BigInt(integer).toLocaleString("en-US") : String(integer);
}

function cell(row, className, ...content) {
  const made = element("td", className);
  made.append(...content);
  row.append(made);
  return made;
}

/** Returns what was paid: SOL as its decimal string, any other mint in base units. */
function price({ sol, quote_amount, quote_mint }) {
  if (sol !== null) return [sol, element("span", "unit", " SOL")];
  return [grouped(quote_amount), " ", quote_mint ? copyable(quote_mint) : "?"];
}

function drawTrade(entry) {
  if (entry.notice) {
    if (!entry.element) cell((entry.element = element("tr", "notice")), "").colSpan = 9;
    entry.element.firstChild.textContent = entry.notice;
    return;
  }
  if (!entry.element) {
    const { data, chain } = entry.frame;
    const row = (entry.element = element("tr", entry.when === "live" ? "new" : ""));
    row.classList.add(data.side === "buy" ? "buy" : "sell");
    cell(row, "side-word", data.side);
    cell(row, "mint", data.mint ? copyable(data.mint) : "not known");
    cell(row, "amount number", grouped(data.base_amount));
    cell(row, "price number", ...price(data));
    cell(row, "program", data.program);
    cell(row, "signature", copyable(chain.signature));
    cell(row, "slot number", chain.slot);
    entry.mark = cell(row, "mark");
    entry.age = cell(row, "age number");
  }
  drawState(entry);
}

function drawToken(entry) {
  if (!entry.element) {
    const { name, symbol, mint, creator } = entry.frame.data;
    const line = (entry.element = element("li", entry.when === "live" ? "new" : ""));
    const about = element("small");
    entry.mark = element("span", "mark");
    entry.age = element("span");
    about.append(copyable(mint), " by ", copyable(creator), " · ", entry.mark, " ", entry.age);
    line.append(element("bdi", "", name), " ", element("bdi", "unit", symbol), about);
  }
  drawState(entry);
}

function drawState(entry) {
  entry.element.classList.toggle("retracted", entry.state === "retracted");
  entry.mark.textContent = entry.state;
  entry.mark.classList.toggle("good", entry.state === "confirmed" || entry.state === "finalized");
}

function drawRaw(entry) {
  entry.element ??= element("li", "", JSON.stringify(entry.frame));
}

/** Puts new entries on top, removes dropped ones, and redraws changed ones. */
function show(container, entries, draw) {
  for (const entry of entries.filter((entry) => entry.changed).reverse()) {
    const isNew = !entry.element;
    draw(entry);
    entry.changed = false;
    if (isNew) container.prepend(entry.element);
  }
  while (container.children.length > entries.length) container.lastElementChild.remove();
}

let drawing = false;
function redraw() {
  if (drawing || paused) return;
  drawing = true;
  requestAnimationFrame(() => {
    drawing = false;
    show($("trades"), trades, drawTrade);
    show($("tokens"), tokens, drawToken);
    show($("raw"), recent.get(chosen) ?? [], drawRaw);
    $("no-trades").hidden = trades.length > 0;
    drawNumbers();
  });
}

function drawNumbers() {
  const open = [...gaps.values()].filter((state) => state === "open").length;
  $("trade-count").textContent = tradeCount.toLocaleString("en-US");
  $("token-count").textContent = tokenCount.toLocaleString("en-US");
  $("gap-count").textContent = open ? `${gaps.size}, ${open} open` : gaps.size;
  $("retract-count").textContent = retractCount;
  $("slot").textContent = slot === null ? "–" : grouped(slot);
  const busiest = [...perProgram].sort((a, b) => b[1] - a[1]).slice(0, PROGRAMS_MAX);
  $("programs").replaceChildren(...busiest.map(([name, count]) => {
    const line = element("li");
    const meter = Object.assign(element("meter"), { max: busiest[0][1], value: count, ariaLabel: name });
    line.append(element("span", "", name), element("span", "number", count.toLocaleString("en-US")), meter);
    return line;
  }));
}

function everySecond() {
  const complete = perSecond.slice(0, -1);
  const top = Math.max(1, ...complete);
  $("rate").textContent = (perSecond.slice(-6, -1).reduce((a, b) => a + b, 0) / 5).toFixed(1);
  const points = complete.map((count, x) => `${x},${19 - (18 * count) / top}`);
  $("spark").firstElementChild.setAttribute("points", points.join(" "));
  perSecond.push(0);
  perSecond.shift();
  for (const entry of [...trades, ...tokens]) if (entry.age) entry.age.textContent = ageOf(entry);
}

/** Returns the time since a live entry arrived; for other entries the true age is unknown. */
function ageOf({ when, at_ms }) {
  const seconds = Math.floor((Date.now() - at_ms) / 1000);
  if (when !== "live") return when;
  return seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min`;
}

async function drawHealth() {
  const ready = await getJson("/health/ready");
  const parts = ready ? Object.entries(ready.components) : [["server", { ready: false, detail: "does not answer" }]];
  $("health").replaceChildren(...parts.map(([name, part]) => {
    const line = element("li");
    line.append(element("span", part.ready ? "state good" : "state bad", name), element("small", "", part.detail));
    return line;
  }));
}

// ---- Which topics ---------------------------------------------------------------------------------------------------

const followed = new Set(["token_updates", "slots", "trades:pump"]); // and the trades of every known program
const following = new Map(); // topic → {subscription}, set once the history was read
let client = null;

function showConnection(kind, text) {
  $("connection").className = `state ${kind}`;
  $("connection").textContent = text;
}

function connect() {
  client = new Client("/ws", {
    token,
    onConnect: () => showConnection("good", "connected"),
    onLoss: (_, ms) => showConnection("bad", `disconnected, trying again in ${Math.ceil(ms / 1000)} s`),
  });
}

/** Reads a topic's history over HTTP, then subscribes from its end on. */
async function follow(topic) {
  if (following.has(topic)) return;
  const follower = {};
  following.set(topic, follower);
  const page = await getJson(`/api/topics/${encodeURIComponent(topic)}/history?reverse=true&limit=${LOOKBACK}`);
  if (following.get(topic) !== follower) return; // no longer followed
  const { items = [], epoch, offset } = page ?? {};
  for (const frame of items.reverse()) take(frame, "earlier");
  const subscription = (follower.subscription = client.subscribe(topic, { recover: epoch ? { epoch, offset } : null }));
  try {
    for await (const value of subscription) take(value, subscription.catchingUp ? "caught up" : "live");
  } catch (refused) {
    if (refused.code >= 1000) showConnection("bad", `refused: ${refused.message}`); // the whole connection
    else if (topic === chosen) $("raw-state").textContent = refused.message;
  }
}

function leave(topic) {
  following.get(topic)?.subscription?.close();
  following.delete(topic);
  recent.delete(topic);
}

/** Returns the JSON of an answer with any status, because problems are JSON, too; `null` if there is no answer. */
async function getJson(path) {
  try {
    return await (await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {} })).json();
  } catch {
    return null;
  }
}

/** Finds the known programs: only programs have an `events:` topic. */
async function findPrograms() {
  const found = (await getJson("/api/topics?prefix=events:&limit=100"))?.topics ?? [];
  const programs = found.map(({ topic }) => topic.slice("events:".length));
  for (const program of programs) {
    followed.add(`trades:${program}`);
    follow(`trades:${program}`);
  }
  const select = $("known");
  if (document.activeElement === select) return;
  const perProgram = ["trades", "events", "tx"].flatMap((kind) => programs.map((name) => `${kind}:${name}`));
  const topics = ["token_updates", "slots", ...perProgram];
  select.replaceChildren(new Option("Topics here", ""), ...topics.map((topic) => new Option(topic)));
}

async function suggest() {
  const prefix = encodeURIComponent($("topic").value);
  const found = await getJson(`/api/topics?prefix=${prefix}&limit=20`);
  $("found").replaceChildren(...(found?.topics ?? []).map(({ topic }) => new Option(topic)));
}

function choose(topic) {
  if (!followed.has(chosen)) leave(chosen);
  chosen = topic;
  $("raw").replaceChildren();
  $("raw-state").textContent = "";
  for (const entry of recent.get(topic) ?? []) Object.assign(entry, { changed: true, element: null });
  follow(topic);
  redraw();
}

$("chooser").onsubmit = (event) => {
  event.preventDefault();
  choose($("topic").value.trim());
};
$("known").onchange = ({ target }) => {
  if (target.value) choose(($("topic").value = target.value));
  target.selectedIndex = 0;
};
$("topic").oninput = suggest;
$("pause").onclick = ({ target }) => {
  paused = !paused;
  target.ariaPressed = String(paused);
  target.textContent = paused ? "Go on" : "Pause";
  redraw();
};

function begin(works) {
  for (const [work, every_ms] of works) {
    setInterval(work, every_ms);
    work();
  }
}

begin([[everySecond, 1000], [drawHealth, 5000]]);
const info = await getJson("/api/info");
if (info?.status === 401) {
  const why = token ? "this server refuses the token" : "this server wants a token";
  showConnection("bad", `${why}: open the page with #token=… behind its address`);
} else {
  $("kind").textContent = info?.demo ? `${info.version} · demo: recorded mainnet trades` : (info?.version ?? "");
  $("kind").hidden = !info;
  connect();
  followed.forEach(follow);
  choose("trades:pump");
  begin([[findPrograms, 2000]]);
}
