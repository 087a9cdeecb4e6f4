// A client of the Headrace stream for browsers and Node: follows topics, reconnects, and reports missing messages.

import { OrderRefused, Refused, Subscription } from "./subscription.js";

export { OrderRefused, Refused, Subscription };

const ASKED_AT_ONCE = 8; // most commands that may wait for their answers, well below the rate that servers allow
const SILENCE_MS = 33_000; // longest silence before the welcome, which names the heartbeat's interval
const ASK_AGAIN_MS = 1_000;
const DEFAULTS = { queue: 1024, credential: "subprotocol", retryMs: 200, retryMsMax: 10_000, openMs: 10_000 };
const CLOSE_FOLLOWS_MS = 50;
const ACKED_MAX = 4_096;
const RECORDS = new Set(["event", "promote", "retract", "gap"]); // frames that have an offset in a topic's log
const OVER = new Set(["CONFIRMED", "FAILED", "CANCELLED", "EXPIRED"]); // statuses in which an order ends
const USELESS_TO_RETRY = new Set([1002, 1007, 1009]); // the client sent a wrong frame, and would send it again
const AUTH_TIMEOUT = 4002, EXPIRED = 4005, BAD_TOKEN = 4500, TOKEN_EXPIRED = 109, ALREADY_SUBSCRIBED = 105;

/** Whether the token function had no network or timed out: the errors of fetch and AbortSignal.timeout. */
const isAway = (error) => error instanceof TypeError || error?.name === "TimeoutError";

/** A random key. Uses `getRandomValues`, as `crypto.randomUUID` is missing in pages that were loaded without TLS. */
const newKey = () => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** One connection, opened again after a loss, for all subscriptions and calls. */
export class Client {
  /** The newest slots that the server knows, as of the last heartbeat. They tell a quiet market from a dead feed. */
  head = null;
  /** Whether the server has welcomed this connection. */
  connected = false;

  #url;
  #options;
  #socket = null;
  #failure = null;
  #subscriptions = new Map(); // topic → Subscription
  #waiting = []; // subscriptions and calls whose command is not sent yet
  #asked = new Map(); // id of a sent command → its subscription or call
  #acks = [];
  #acked = new Set();
  #lastId = 0;
  #attempts = 0;
  #heardAt = 0;
  #silenceMs = SILENCE_MS;
  #timers = new Set();
  #renewing = false; // only one token at a time, as a server that is checking one refuses the next

  constructor(url, options = {}) {
    this.#url = new URL(url, globalThis.location?.href);
    this.#url.protocol = this.#url.protocol.replace("http", "ws");
    if (!this.#url.searchParams.has("batch")) this.#url.searchParams.set("batch", "1");
    this.#options = { ...DEFAULTS, WebSocket: globalThis.WebSocket, ...options };
    if (!this.#options.WebSocket) throw new TypeError("this runtime has no WebSocket: give one as an option");
    this.#connect();
  }

  /** Follow a topic: iterate over the returned subscription. */
  subscribe(topic, options = {}) {
    if (this.#subscriptions.has(topic)) throw new Error(`${topic}: already subscribed; one client follows a topic once`);
    const subscription = new Subscription(topic, options, this.#options.queue, {
      emptied: () => this.#emptied(subscription),
      leave: () => this.#leave(subscription),
    });
    if (this.#failure) subscription._fail(this.#failure);
    else {
      this.#subscriptions.set(topic, subscription);
      this.#enter(subscription);
    }
    return subscription;
  }

  /** A page of a topic's log: {topic, epoch, offset, items}; there is more until the last item is at `offset`. */
  history(topic, { since, limit = 100, reverse = false } = {}) {
    return this.#call("history", { topic, since, limit, reverse });
  }

  /**
   * Place an order: resolves to {order, replayed} once the server has it on disk, to be executed once. It is asked for
   * under one key over as many connections as it takes; rejects with OrderRefused.
   */
  execute(order, { key = newKey(), signal } = {}) {
    return this.#call("order.execute", { ...order, idempotencyKey: key }, { key, signal });
  }

  /** {order}: the current state of an order. */
  order(orderId, { signal } = {}) {
    return this.#call("order.get", { orderId }, { signal });
  }

  /** {order, requested}: cancel an order. `requested`: the cancel is only requested, as its transaction may still land. */
  cancel(orderId, { signal } = {}) {
    return this.#call("order.cancel", { orderId }, { signal });
  }

  /** The best offer for {inputMint, outputMint, amount, slippageBps, swapMode}, as `GET /api/quote` answers. */
  quote(asked, { signal } = {}) {
    return this.#call("quote", asked, { signal });
  }

  /** Yields the order each time it has changed, until it has ended; never an older state after a newer one. */
  async *watch(orderId) {
    const subscription = this.subscribe(`order:${orderId}`);
    try {
      await subscription.started();
      let { order } = await this.order(orderId);
      yield order;
      if (OVER.has(order.status)) return;
      for await (const { type, data } of subscription) {
        if (type === "event" && data.seq <= order.seq) continue;
        const newer = (await this.order(orderId)).order;
        if (newer.seq <= order.seq) continue;
        yield (order = newer);
        if (OVER.has(order.status)) return;
      }
    } finally {
      subscription.close();
    }
  }

  /** Acknowledge a message that has `ack`, so that the server does not send it again. */
  ack({ topic, offset }) {
    this.#acked.add(`${topic} ${offset}`);
    if (this.#acked.size > ACKED_MAX) this.#acked.delete(this.#acked.values().next().value);
    this.#acks.push({ topic, offset });
    this.#pump();
  }

  /** Close the client: iterations end, waiting calls are rejected. */
  close() {
    for (const subscription of [...this.#subscriptions.values()]) subscription.close();
    this.#fail(new Refused(1000, "the client was closed"));
  }

  // The connection.

  async #connect() {
    const { token, credential, WebSocket } = this.#options;
    let shown, socket;
    try {
      shown = typeof token === "function" ? await token() : token;
      if (this.#failure) return;
      if (shown && !/^[\w.-]+$/.test(shown)) throw new Refused(BAD_TOKEN, "bad token"); // the runtime's error shows it
      const protocols = shown && credential === "subprotocol" ? ["stream.v1", `jwt.${shown}`] : [];
      socket = this.#socket = new WebSocket(this.#url.href, protocols);
    } catch (error) {
      return isAway(error) ? this.#lost(1006, `no token: ${error.message}`) : this.#fail(error);
    }
    let progress = false;
    const end = (code, reason) => {
      if (this.#socket !== socket) return;
      this.#socket = null;
      socket.close();
      if (progress) this.#attempts = 0;
      this.#lost(code, reason);
    };
    this.#silenceMs = this.#options.openMs; // some versions of Node don't report a reset handshake
    this.#heardAt = Date.now();
    socket.onopen = () => {
      this.#silenceMs = SILENCE_MS;
      this.#heardAt = Date.now();
      if (shown && credential === "frame") this.#authenticate(shown);
    };
    socket.onclose = ({ code, reason }) => end(code, reason);
    socket.onerror = () => this.#later(CLOSE_FOLLOWS_MS, () => end(1006, "")); // some Nodes send no close after error
    socket.onmessage = ({ data }) => {
      if (this.#socket !== socket) return;
      this.#heardAt = Date.now();
      try {
        for (const line of data.split("\n")) progress = this.#receive(JSON.parse(line)) || progress;
      } catch (error) {
        if (error instanceof Refused) this.#fail(error);
        else end(1006, `unreadable frame: ${error.message}`);
      }
    };
    this.#watch(socket, end);
  }

  /** End the connection if no frame has arrived for too long: an open connection may be dead. */
  #watch(socket, end) {
    const leftMs = this.#heardAt + this.#silenceMs - Date.now();
    if (leftMs <= 0) end(1006, this.#silenceMs === this.#options.openMs ? "no answer to the handshake" : "no heartbeat");
    else this.#later(Math.min(leftMs, 1000), () => this.#socket === socket && this.#watch(socket, end));
  }

  #lost(code, reason) {
    this.connected = this.#renewing = false;
    const calls = [...this.#asked.values(), ...this.#waiting].filter((ask) => ask.resolve);
    this.#asked.clear();
    this.#waiting = calls;
    for (const subscription of this.#subscriptions.values()) subscription._standing = "away";
    const { retryMs, retryMsMax, token } = this.#options;
    const outdated = code === EXPIRED && typeof token === "string"; // there is no newer token
    const unnamed = code === AUTH_TIMEOUT && !token; // the next connection would have no token either
    if (code >= 4500 || USELESS_TO_RETRY.has(code) || outdated || unnamed) {
      return this.#fail(new Refused(code, reason || "the server ended the connection"));
    }
    const delayMs = Math.min(retryMsMax, retryMs * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.#later(delayMs, () => this.#connect());
    this.#options.onLoss?.(reason || "connection lost", delayMs); // may close the client
  }

  #fail(failure) {
    if (this.#failure) return;
    this.#failure = failure;
    this.connected = false;
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    for (const timer of this.#timers) clearTimeout(timer);
    for (const subscription of this.#subscriptions.values()) subscription._fail(failure);
    for (const ask of [...this.#asked.values(), ...this.#waiting]) ask.reject?.(failure);
    this.#subscriptions.clear();
    this.#asked.clear();
    this.#waiting = [];
  }

  #later(delayMs, work) {
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      work();
    }, delayMs);
    this.#timers.add(timer);
  }

  #renew() {
    if (this.#renewing || typeof this.#options.token !== "function") return;
    this.#renewing = true;
    this.#refresh(this.#socket);
  }

  /** Send a new token, on this connection only. */
  async #refresh(socket) {
    const { token } = this.#options;
    try {
      const shown = typeof token === "function" ? await token() : token;
      if (shown && this.#socket === socket) this.#authenticate(shown);
    } catch (error) {
      if (!isAway(error)) this.#fail(error);
      else this.#refreshLater(socket, ASK_AGAIN_MS); // the old token stays in use until it expires
    }
  }

  #refreshLater(socket, delayMs) {
    this.#later(delayMs, () => this.#socket === socket && this.#refresh(socket));
  }

  #authenticate(token) {
    this.#command("auth", { token }, { auth: true });
  }

  // Received frames. Each handler returns whether the frame is more than a welcome.

  #receive(frame) {
    if (RECORDS.has(frame.type)) return this.#record(frame);
    const { topic, data } = frame;
    switch (frame.type) {
      case "welcome":
        this.#silenceMs = (data.ping_s + data.pong_s) * 1000;
        this.connected = true;
        this.#options.onConnect?.();
        for (const subscription of this.#subscriptions.values()) if (!subscription._behind) this.#enter(subscription);
        this.#pump();
        return false;
      case "ping":
        this.head = { atMs: data.ts, ...data.head, upstream_lag_ms: data.upstream_lag_ms };
        this.#socket?.send('{"type":"pong"}');
        for (const [name, top] of Object.entries(data.tops ?? {})) this.#live(name)?._reached(top);
        return true;
      case "subscribed": {
        const subscription = this.#answered(frame.id);
        if (subscription?._standing === "asked" && this.#subscriptions.get(topic) === subscription) {
          subscription._subscribed(data);
        }
        break;
      }
      case "history":
        this.#answered(frame.id)?.resolve?.({ topic, ...data });
        break;
      case "order":
        this.#answered(frame.id)?.resolve?.({ order: data, replayed: !!frame.replayed, requested: !!frame.requested });
        break;
      case "quote":
        this.#answered(frame.id)?.resolve?.(data);
        break;
      case "lag":
      case "snapshot":
        this.#live(topic)?.[`_${frame.type}`](frame);
        return true;
      case "unsubscribed":
      case "authenticated":
        if (this.#answered(frame.id)?.auth) this.#renewing = false;
        break;
      case "auth_expiring":
        this.#renew();
        break;
      case "error":
        this.#error(frame.id === undefined ? this.#subscriptions.get(topic) : this.#answered(frame.id), frame);
    }
    this.#pump();
    return false;
  }

  #record(frame) {
    const subscription = this.#live(frame.topic);
    if (!subscription) return true;
    if (frame.ack && this.#acked.has(`${frame.topic} ${frame.offset}`)) this.ack(frame);
    const whole = subscription._record(frame);
    if (!whole || subscription._behind) this.#suspend(subscription);
    if (!whole) this.#enter(subscription);
    return true;
  }

  #error(ask, { id, data }) {
    const { code, message, temporary, retry_after_ms } = data;
    if (ask instanceof Subscription && ask._standing === "asked") ask._standing = "away";
    const delayMs = retry_after_ms ?? ASK_AGAIN_MS;
    if (ask?.auth && (temporary || code === TOKEN_EXPIRED)) return this.#refreshLater(this.#socket, delayMs);
    if (code === TOKEN_EXPIRED) this.#renew();
    if (/^(order\.|quote$)/.test(ask?.kind) && (data.fate || !temporary) && !(temporary && data.fate === "unknown")) {
      const fate = data.fate ?? "unknown";
      return ask.reject(new OrderRefused({ ...data, fate }, ask.key));
    }
    if (temporary || code === TOKEN_EXPIRED || (code === ALREADY_SUBSCRIBED && ask instanceof Subscription)) {
      if (code === ALREADY_SUBSCRIBED) this.#command("unsubscribe", { topic: ask.topic }, { leave: ask.topic });
      if (ask) this.#later(delayMs, () => this.#again(ask));
    } else if (ask instanceof Subscription) {
      if (this.#subscriptions.get(ask.topic) === ask) this.#subscriptions.delete(ask.topic);
      ask._fail(new Refused(code, `${ask.topic}: ${message}`));
    } else if (ask?.reject) {
      ask.reject(new Refused(code, message));
    } else if (ask?.auth || id === undefined) {
      throw new Refused(code, message);
    }
  }

  #again(ask) {
    if (ask instanceof Subscription) {
      if (this.#subscriptions.get(ask.topic) === ask && !ask._behind && ask._standing === "away") this.#enter(ask);
    } else if (ask.resolve) {
      this.#waiting.push(ask);
      this.#pump();
    } else if (this.connected && !this.#live(ask.leave)) {
      this.#command("unsubscribe", { topic: ask.leave }, ask);
    }
  }

  #call(kind, data, { key, signal } = {}) {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      signal?.throwIfAborted();
      const ask = { kind, data, key, resolve, reject };
      const abort = () => {
        this.#waiting = this.#waiting.filter((each) => each !== ask);
        ask.given_up = true;
        reject(signal.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#waiting.push(ask);
      this.#pump();
    });
  }

  #answered(id) {
    const ask = this.#asked.get(id);
    this.#asked.delete(id);
    return ask;
  }

  #live(topic) {
    const subscription = this.#subscriptions.get(topic);
    return subscription?._standing === "live" && !subscription._behind ? subscription : undefined;
  }

  // Sent commands.

  #enter(subscription) {
    if (!this.connected || this.#waiting.includes(subscription)) return;
    if (subscription._implicit) subscription._begin();
    else {
      this.#waiting.push(subscription);
      this.#pump();
    }
  }

  /** Accept no more frames of a subscription, and unsubscribe. */
  #suspend(subscription) {
    const { topic } = subscription;
    const asked = subscription._standing !== "away";
    subscription._standing = "away";
    if (this.#waiting.includes(subscription)) this.#waiting = this.#waiting.filter((ask) => ask !== subscription);
    else if (asked && this.connected && !subscription._implicit) this.#command("unsubscribe", { topic }, { leave: topic });
  }

  #leave(subscription) {
    if (this.#subscriptions.get(subscription.topic) !== subscription) return;
    this.#subscriptions.delete(subscription.topic);
    this.#suspend(subscription);
  }

  #emptied(subscription) {
    if (!subscription._behind || this.#subscriptions.get(subscription.topic) !== subscription) return;
    subscription._behind = false;
    this.#enter(subscription);
  }

  #pump() {
    if (!this.connected) return;
    for (const data of this.#acks.splice(0)) this.#command("ack", data);
    while (this.#waiting.length && this.#asked.size < ASKED_AT_ONCE) {
      const ask = this.#waiting.shift();
      if (ask instanceof Subscription) this.#command("subscribe", ask._ask(), ask);
      else if (!ask.given_up) this.#command(ask.kind, ask.data, ask);
    }
  }

  #command(type, data, ask) {
    const id = ++this.#lastId;
    if (ask) this.#asked.set(id, ask);
    this.#socket?.send(JSON.stringify({ type, id, data }));
  }
}
