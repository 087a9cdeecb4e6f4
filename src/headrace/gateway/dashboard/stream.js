// A complete client of the protocol for browsers: follows topics, comes back, and asks for what it missed.

const LOOKBACK = 25; // messages of a topic's past that are given when it is first followed
const RETRY_MS = 500, RETRY_MS_MAX = 10_000;
const USELESS_TO_RETRY = new Set([1002, 1007, 1009]); // we sent something wrong and would only do so again
const NO_CREDENTIAL_IN_TIME = 4002;

let token = null;

/** From here on, connections and requests show this token. */
export function useToken(given) {
  token = given;
}

/**
 * One connection that comes back, and per topic the last message we have, to ask for what came since.
 *
 * It calls `on.message(frame, text, when)` with `when` = "earlier" (before we followed), "caught up" (missed while we
 * were away) or "live"; `on.lost(topic)` when what was missed can't be had; `on.refused(topic, error)`; and
 * `on.state(kind, text)` with `kind` = "good", "wait" or "bad".
 */
export class Stream {
  topics = new Set();
  #positions = new Map(); // topic → {epoch, offset}
  #replays = new Map(); // topic → offset up to which what comes was missed while we were away
  #requests = new Map(); // id → topic, of what is not answered
  #lastId = 0;
  #attempts = 0;
  #welcome = false;
  #heard_ms = 0;
  #silence_ms = Infinity;
  #socket = null;

  constructor(on) {
    this.on = on;
    setInterval(() => this.#heard_ms + this.#silence_ms < Date.now() && this.#socket?.close(), 1000);
  }

  connect() {
    this.on.state("wait", this.#attempts ? "reconnecting" : "connecting");
    const url = `${location.origin.replace(/^http/, "ws")}/ws?batch=1`;
    const socket = (this.#socket = new WebSocket(url, token ? ["stream.v1", `jwt.${token}`] : []));
    socket.onmessage = ({ data }) => {
      this.#heard_ms = Date.now();
      for (const line of data.split("\n")) this.#receive(JSON.parse(line), line);
    };
    socket.onclose = ({ code, reason }) => this.#closed(code, reason);
  }

  follow(topic) {
    if (this.topics.has(topic)) return;
    this.topics.add(topic);
    if (this.#welcome) this.#begin(topic);
  }

  leave(topic) {
    this.topics.delete(topic);
    this.#positions.delete(topic);
    if (this.#welcome) this.#send("unsubscribe", topic);
  }

  /** First the past (from HTTP when we have nothing yet), then a subscription that goes on from there. */
  async #begin(topic) {
    const socket = this.#socket;
    if (!this.#positions.has(topic)) {
      const page = await getJson(`/api/topics/${encodeURIComponent(topic)}/history?reverse=true&limit=${LOOKBACK}`);
      if (this.#socket !== socket || !this.topics.has(topic)) return; // much may have happened while we waited
      if (page?.items) {
        for (const frame of page.items.reverse()) this.on.message(frame, JSON.stringify(frame), "earlier");
        this.#positions.set(topic, { epoch: page.epoch, offset: page.offset });
      }
    }
    if (this.#welcome) this.#send("subscribe", topic, { recover: this.#positions.get(topic) });
  }

  #send(type, topic, more = {}) {
    const id = ++this.#lastId;
    this.#requests.set(id, topic);
    this.#socket.send(JSON.stringify({ type, id, data: { topic, ...more } }));
  }

  #receive(frame, text) {
    const { type, topic, data } = frame;
    const asked = this.#requests.get(frame.id);
    this.#requests.delete(frame.id);
    if (type === "welcome") {
      this.#attempts = 0;
      this.#welcome = true;
      this.#silence_ms = (data.ping_s + data.pong_s) * 1000;
      this.on.state("good", "connected");
      for (const wanted of this.topics) this.#begin(wanted);
    } else if (type === "ping") {
      this.#socket.send('{"type":"pong"}');
    } else if (type === "subscribed") {
      if (data.was_recovering && data.recovered) {
        this.#replays.set(topic, BigInt(data.offset));
      } else {
        this.#positions.set(topic, { epoch: data.epoch, offset: data.offset });
        if (data.was_recovering) this.on.lost(topic);
      }
    } else if (type === "error") {
      if (data.temporary) setTimeout(() => this.topics.has(asked) && this.#begin(asked), data.retry_after_ms ?? 1000);
      else this.on.refused(asked, data);
    } else if (frame.offset !== undefined) {
      this.#positions.set(topic, { epoch: frame.epoch, offset: frame.offset });
      const missed = BigInt(frame.offset) <= (this.#replays.get(topic) ?? 0n);
      if (!missed) this.#replays.delete(topic);
      this.on.message(frame, text, missed ? "caught up" : "live");
    }
  }

  #closed(code, reason) {
    this.#welcome = false;
    this.#requests.clear();
    this.#silence_ms = Infinity;
    if (code === NO_CREDENTIAL_IN_TIME && !token) {
      this.on.state("bad", "this server wants a token: open the page with #token=… behind its address");
      return;
    }
    if (code >= 4500 || USELESS_TO_RETRY.has(code)) {
      this.on.state("bad", `refused: ${reason || "no reason given"} (${code})`);
      return;
    }
    const wait_ms = Math.min(RETRY_MS_MAX, RETRY_MS * 2 ** this.#attempts++) * (0.5 + Math.random() / 2);
    this.on.state("bad", `disconnected, trying again in ${Math.ceil(wait_ms / 1000)} s`);
    setTimeout(() => this.connect(), wait_ms);
  }
}

/** What a path answers, of whatever status: problems are JSON too. `null` when there is no answer. */
export async function getJson(path) {
  try {
    return await (await fetch(path, { headers: token ? { Authorization: `Bearer ${token}` } : {} })).json();
  } catch {
    return null;
  }
}
