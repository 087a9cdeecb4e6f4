// One topic as its reader sees it: the position, the values that wait, and whether any are missing.

/** A final refusal by the server; `code` is its error code or close code. A retry would not help. */
export class Refused extends Error {
  constructor(code, message) {
    super(`${message} (${code})`);
    this.name = "Refused";
    this.code = code;
  }
}

/**
 * The server refused an order command. `reason` is the constant for programs; `errors` names the wrong fields. `fate` is
 * "not_executed", "executed" or "unknown"; after "unknown", repeat the command with the same `key`.
 */
export class OrderRefused extends Refused {
  constructor({ code, message, reason = "", fate = "unknown", retryable = false, retry_after_ms = null, errors = [] }, key) {
    super(code, message);
    this.name = "OrderRefused";
    Object.assign(this, { key, reason, fate, retryable, retryAfterMs: retry_after_ms });
    this.errors = Object.fromEntries(errors.map((wrong) => [wrong.name, wrong.message]));
  }
}

/**
 * `for await (const value of subscription)` gives the values of one topic, in order, none twice, to one reader.
 *
 * At most `queue` values wait for the reader. With more, the subscription leaves its topic. Once its reader has read all
 * values, it recovers: the reader then gets all missed values, or `not_recovered`.
 */
export class Subscription {
  _standing = "away"; // or "asked", or "live"
  _behind = false;

  #options;
  #capacity;
  #on;
  #items = []; // {value, position}; without `value`, only the position changes
  #last; // the position up to which all values are in #items or were read
  #position;
  #missedTo = null; // the newest position at the last recovery
  #wake = null;
  #started;
  #begun;
  #failure = null;
  #closed = false;
  #jumpedFrom = null;
  #paging = false;

  /** Made by `Client.subscribe`. */
  constructor(topic, options, capacity, on) {
    this.topic = topic;
    this.#options = options;
    this.#capacity = capacity;
    this.#on = on;
    this.#last = this.#position = options.recover ?? null;
    this.#started = new Promise((resolve, reject) => (this.#begun = { resolve, reject }));
    this.#started.catch(() => {}); // the reader gets the error too
  }

  /** {epoch, offset} of the last value that the reader got. Store it once the value is processed, for `recover`. */
  get position() {
    this.#skip();
    return this.#position;
  }

  /** Whether the last value that the reader got had been missed, and came by recovery. */
  get catchingUp() {
    const [here, to] = [this.#position, this.#missedTo];
    return to !== null && here?.epoch === to.epoch && BigInt(here.offset) <= BigInt(to.offset);
  }

  /** Resolves once the server has accepted the subscription; rejects with Refused. */
  started() {
    return this.#started.then(() => this);
  }

  /** Stop following the topic; iteration ends. */
  close() {
    this.#closed = true;
    this.#items = [];
    this.#begun.reject(new Refused(1000, "the subscription was closed"));
    this.#on.leave();
    this.#woken();
  }

  async *[Symbol.asyncIterator]() {
    try {
      while (true) {
        this.#skip();
        if (this.#items.length) {
          const { value, position } = this.#items.shift();
          this.#position = position;
          this.#taken();
          yield value;
        } else if (this.#closed) return;
        else if (this.#failure) throw this.#failure;
        else await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      this.close();
    }
  }

  // Used by `Client`.

  /** Whether the topic's messages come without a `subscribe`. */
  get _implicit() {
    return this.topic.startsWith("user:");
  }

  _ask() {
    this._standing = "asked";
    const { filter, snapshot, conflate, onSlow } = this.#options;
    return { topic: this.topic, filter, snapshot, conflate, on_slow: onSlow, recover: this.#last ?? undefined };
  }

  _begin() {
    this._standing = "live";
    this.#begun.resolve();
  }

  _subscribed({ epoch, offset, was_recovering, recovered }) {
    this._begin();
    this.#paging = false;
    this.#missedTo = was_recovering && recovered ? { epoch, offset } : null;
    if (this.#missedTo) return;
    const now = this.#options.snapshot ? null : { epoch, offset };
    const lost = was_recovering && { type: "not_recovered", topic: this.topic, before: this.#last, now };
    this.#put(lost || undefined, (this.#last = now));
  }

  /** Process a frame. Returns false if earlier messages are missing, so a new `subscribe` is due. */
  _record(frame) {
    const here = { epoch: frame.epoch, offset: frame.offset };
    const offset = BigInt(frame.offset);
    const last = this.#last;
    if (last?.epoch === frame.epoch) {
      const expected = BigInt(last.offset) + 1n;
      if (offset < expected) return true;
      if (this.#whole && offset !== expected) {
        if (this.#jumpedFrom !== last) {
          this.#jumpedFrom = last;
          return false;
        }
        this.#drop(expected, { epoch: frame.epoch, offset: `${offset - 1n}` });
      }
    }
    if (this.#items.length >= this.#capacity) {
      if (this._implicit) this.#overflow(here);
      else this._behind = true;
      return true;
    }
    if (last && last.epoch !== frame.epoch && !this._implicit) {
      const now = { epoch: frame.epoch, offset: `${offset - 1n}` };
      this.#put({ type: "not_recovered", topic: this.topic, before: last, now }, now);
    }
    this.#put(frame, (this.#last = here));
    return true;
  }

  _lag(frame) {
    const last = this.#last;
    const { epoch = last?.epoch ?? "", from_offset, to_offset } = frame.data;
    if (last?.epoch === epoch && BigInt(to_offset) <= BigInt(last.offset)) return; // read on an earlier connection
    if (last && this.#options.onSlow === "conflate") return this.#put(frame, last); // the messages that were not dropped follow
    if (last && last.epoch !== epoch && !this._implicit) {
      const now = { epoch, offset: `${BigInt(from_offset) - 1n}` };
      this.#put({ type: "not_recovered", topic: this.topic, before: last, now }, now);
    }
    this.#put(frame, (this.#last = { epoch, offset: to_offset }));
  }

  _snapshot(frame) {
    const last = frame.data.next == null;
    const first = !this.#paging;
    this.#paging = !last;
    if (last) this.#last = { epoch: frame.epoch, offset: frame.offset };
    this.#put({ ...frame, first, last }, this.#last);
  }

  /** Process a heartbeat: the server has sent every message up to `top` that passes the filter. */
  _reached(top) {
    const last = this.#last;
    if (this.#whole || !last || this.#items.length >= this.#capacity || BigInt(top) <= BigInt(last.offset)) return;
    this.#put(undefined, (this.#last = { epoch: last.epoch, offset: top }));
  }

  _fail(failure) {
    this._standing = "away";
    this.#failure ??= failure;
    this.#begun.reject(failure);
    this.#woken();
  }

  /** Whether the server sends every offset, so that a skipped offset means a loss. */
  get #whole() {
    return !(this.#options.filter || this.#options.conflate || this._implicit);
  }

  /** Report a message as dropped, as the client can't request it again on this connection. */
  #overflow(here) {
    const newest = this.#items.at(-1)?.value;
    if (newest?.type === "lag") this.#items.pop();
    this.#drop(BigInt(newest?.type === "lag" ? newest.data.from_offset : here.offset), here);
  }

  /** Report a loss that only the client noticed, by a `lag` as the server would send it. */
  #drop(first, to) {
    const data = { epoch: to.epoch, from_offset: `${first}`, to_offset: to.offset, dropped: Number(BigInt(to.offset) - first + 1n) };
    this.#put({ type: "lag", topic: this.topic, data }, (this.#last = to));
  }

  #put(value, position) {
    this.#items.push({ value, position });
    this.#woken();
  }

  #skip() {
    while (this.#items.length && !this.#items[0].value) {
      this.#position = this.#items.shift().position;
      this.#taken();
    }
  }

  #taken() {
    if (!this.#items.length) this.#on.emptied();
  }

  #woken() {
    this.#wake?.();
    this.#wake = null;
  }
}
