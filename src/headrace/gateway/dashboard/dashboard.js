// The page at `/`: trades and new tokens as they happen, and any topic you name.
// Names on the chain are anyone's words: they only ever become textContent. Amounts stay strings and BigInt.

import { getJson, Stream, useToken } from "/stream.js";

const TRADES_MAX = 30, TOKENS_MAX = 12, RAW_MAX = 40, PROGRAMS_MAX = 12;

// What stands behind # never leaves the browser; it goes out of the address, so that nobody copies it along.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token) {
  useToken(token);
  history.replaceState(null, "", location.pathname);
}

// ---- What is known --------------------------------------------------------------------------------------------------

// Entries are newest first and bounded; `changed` ones are drawn anew with the next animation frame.
const trades = [], tokens = [];
const recent = new Map(); // topic → frames as they came
const gaps = new Map(); // gap id → state
const perProgram = new Map();
const perSecond = new Array(60).fill(0);
let tradeCount = 0, tokenCount = 0, retractCount = 0, slot = null, chosen = null, paused = false;

function add(entries, max, entry) {
  entries.unshift({ changed: true, element: null, ...entry });
  entries.length = Math.min(entries.length, max);
}

function take(frame, text, when) {
  const { type, topic, data } = frame;
  if (when === "live") perSecond[perSecond.length - 1] += 1;
  if (!recent.has(topic)) recent.set(topic, []);
  add(recent.get(topic), RAW_MAX, { text });
  if (followed.has(topic)) {
    if (type === "event") takeEvent(frame, when);
    else if (type === "promote") mark(frame, (told) => told.chain.slot === data.slot, data.commitment);
    else if (type === "retract") mark(frame, (told) => data.event_ids.includes(told.event_id), "retracted");
    else if (type === "gap") takeGap(data);
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

/** A verdict over what was told before on the same topic. */
function mark({ topic, epoch }, concerns, state) {
  for (const entry of [...trades, ...tokens]) {
    const told = entry.frame;
    if (told?.topic === topic && told.epoch === epoch && entry.state !== "retracted" && concerns(told)) {
      Object.assign(entry, { state, changed: true });
    }
  }
}

const GAP_WORDS = { open: "being refilled", backfilled: "refilled, nothing is missing", unrecoverable: "can't be had" };

/** A gap is told on every topic that it concerns, again when it is closed: here it is one line. */
function takeGap({ gap_id, from_slot, to_slot, state }) {
  gaps.set(gap_id, state);
  const notice = `The node missed slots ${from_slot} to ${to_slot}: ${GAP_WORDS[state] ?? state}.`;
  const known = trades.find((entry) => entry.gap_id === gap_id);
  if (known) Object.assign(known, { notice, changed: true });
  else add(trades, TRADES_MAX, { notice, gap_id });
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

/** A key or signature: short, whole on hover, copied on click. */
function copyable(text) {
  const button = element("button", "copy", short(text));
  Object.assign(button, { type: "button", title: text, ariaLabel: `Copy ${text}` });
  button.onclick = async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.classList.add("done");
    } catch {
      prompt("Copy:", text); // pages over plain HTTP have no clipboard
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

/** What was paid: SOL as the decimal string it came as, other money in its base units. */
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
  entry.element ??= element("li", "", entry.text);
}

/** New entries on top, fallen-out ones away, changed ones drawn anew. */
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

/** Since it came here; of what came late nobody knows. */
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

const followed = new Set(["token_updates", "slots", "trades:pump"]); // and the trades of every program that is heard of
const stream = new Stream({
  message: take,
  lost(topic) {
    add(trades, TRADES_MAX, { notice: `${topic}: too long away, some messages can't be had any more.` });
    redraw();
  },
  refused(topic, error) {
    if (topic === chosen) $("raw-state").textContent = `${error.message} (${error.code})`;
  },
  state(kind, text) {
    $("connection").className = `state ${kind}`;
    $("connection").textContent = text;
  },
});

/** `events:` topics are named after programs only, so they tell which programs there are. */
async function findPrograms() {
  const found = (await getJson("/api/topics?prefix=events:&limit=100"))?.topics ?? [];
  const programs = found.map(({ topic }) => topic.slice("events:".length));
  for (const program of programs) {
    followed.add(`trades:${program}`);
    stream.follow(`trades:${program}`);
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
  if (chosen !== null && chosen !== topic && !followed.has(chosen)) {
    stream.leave(chosen);
    recent.delete(chosen);
  }
  chosen = topic;
  $("raw").replaceChildren();
  $("raw-state").textContent = "";
  for (const entry of recent.get(topic) ?? []) Object.assign(entry, { changed: true, element: null });
  stream.follow(topic);
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

for (const topic of followed) stream.follow(topic);
choose("trades:pump");
stream.connect();
for (const [work, every_ms] of [[everySecond, 1000], [drawHealth, 5000], [findPrograms, 2000]]) {
  setInterval(work, every_ms);
  work();
}
getJson("/api/info").then((info) => {
  $("kind").textContent = info?.demo ? `${info.version} · demo: recorded mainnet trades` : (info?.version ?? "");
  $("kind").hidden = !info;
});
