// Types of the client. Offsets, slots and amounts are text, because they may be larger than a number can hold.

/** A place in a topic's log: that of the last message one has. */
export interface Position {
  epoch: string;
  offset: string;
}

/** Where on the chain an event happened, and how certain it was when it was sent. */
export interface Chain {
  slot: string;
  signature: string | null;
  ix: number[];
  commitment: string;
  tx_version: number | string | null;
  source: string | null;
  truncated: boolean;
  via: string | null;
}

interface Recorded extends Position {
  topic: string;
}

/** Something happened. One that comes again under its `event_id` replaces the first. */
export interface Event<Data = any> extends Recorded {
  type: "event";
  event_id: string;
  data: Data;
  chain?: Chain;
  /** The server keeps it until `Client.ack`. */
  ack?: boolean;
}

/** All events of this slot on this topic are now this certain. */
export interface Promote extends Recorded {
  type: "promote";
  data: { slot: string; commitment: string };
}

/** These events did not happen after all: undo what you made of them. */
export interface Retract extends Recorded {
  type: "retract";
  data: { event_ids: string[]; reason: string };
}

/** Between these slots the server may have missed something; the same `gap_id` tells how it ends. */
export interface Gap extends Recorded {
  type: "gap";
  data: {
    gap_id: string;
    from_slot: string;
    to_slot: string;
    state: "open" | "backfilled" | "unrecoverable";
    reason?: string;
  };
}

/** `dropped` messages of these offsets will not come. */
export interface Lag {
  type: "lag";
  topic: string;
  data: { epoch: string; from_offset: string; to_offset: string; dropped: number };
}

/** A page of the topic's state: the `first` one replaces what you have; after the `last` one events go on. */
export interface Snapshot extends Recorded {
  type: "snapshot";
  first: boolean;
  last: boolean;
  data: { as_of_slot: string | null; items: Event[]; next: unknown; complete?: boolean };
}

/** What came after `before` can't be had: throw away what you made of this topic. `now` is null if a snapshot follows. */
export interface NotRecovered {
  type: "not_recovered";
  topic: string;
  before: Position;
  now: Position | null;
}

export type Value = Event | Promote | Retract | Gap | Lag | Snapshot | NotRecovered;

/** How far the server knows the chain. A quiet market: `processed` goes on growing. A dead feed: it stands. */
export interface Head {
  atMs: number;
  processed: string | null;
  confirmed: string | null;
  upstream_lag_ms: number | null;
}

/** A page of a topic's log; there is more until the last item is at `offset`. */
export interface Page extends Position {
  topic: string;
  items: (Event | Promote | Retract | Gap)[];
}

/** An order as the server's `GET /api/orders/{id}` answers it; amounts are text. */
export interface Order {
  orderId: string;
  status: "PENDING" | "ROUTING" | "BUILDING" | "SUBMITTED" | "CONFIRMED" | "FAILED" | "CANCELLED" | "EXPIRED";
  type: string;
  tokenIn: string;
  tokenOut: string;
  amount: string;
  uiAmount: string | null;
  seq: number;
  dex: string | null;
  txHash: string | null;
  executedPrice: string | null;
  errorReason: string | null;
  fate: Fate | null;
  [field: string]: any;
}

/** What became of an order. After "unknown", ask again with the same key. */
export type Fate = "not_executed" | "executed" | "unknown";

/** What `POST /api/orders/execute` takes: amounts and prices are text. */
export interface NewOrder {
  tokenIn: string;
  tokenOut: string;
  /** Whole tokens, as decimal text; or `amount` in base units. */
  uiAmount?: string;
  amount?: string;
  type?: "market" | "limit" | "stop";
  slippageBps?: number;
  /** Not begun later than this after it was taken. */
  expiresInMs?: number;
  userId?: string;
  [field: string]: any;
}

/** The server's answer to an order command. */
export interface OrderAnswer {
  order: Order;
  /** An order with this key was there already, and this is that one. */
  replayed: boolean;
  /** The cancel is a wish so far: the order's transaction may be on its way. */
  requested: boolean;
}

export interface CallOptions {
  /** Ends the waiting: the call rejects with the signal's reason, and an order's fate is unknown. */
  signal?: AbortSignal;
}

export interface ClientOptions {
  /**
   * Text, or what gives a fresh one: asked before each connection and when the server says that the old one ends. What
   * it throws ends the client; what `fetch` throws when there is no network (a TypeError), or a TimeoutError, does not.
   */
  token?: string | (() => string | Promise<string>);
  /** Whether the token goes into the handshake or is sent as the first frame. */
  credential?: "subprotocol" | "frame";
  /** How many values a subscription holds that its reader has not taken. */
  queue?: number;
  /** Told each time the server has welcomed a connection. */
  onConnect?: () => void;
  /** Told of each lost connection and failed attempt. */
  onLoss?: (why: string, nextAttemptInMs: number) => void;
  /** The first delay before coming back, and the longest. */
  retryMs?: number;
  retryMsMax?: number;
  /** How long a connection may take to open before another is tried. */
  openMs?: number;
  /** For runtimes without a WebSocket of their own. */
  WebSocket?: typeof WebSocket;
}

export interface SubscribeOptions {
  filter?: object;
  /** A stored `Subscription.position` to go on from. */
  recover?: Position | null;
  snapshot?: boolean;
  conflate?: { key: string; every_ms: number };
  onSlow?: "disconnect" | "conflate" | "drop_oldest";
}

/** The server refused for good; `code` is its error code or close code. Trying again would not help. */
export class Refused extends Error {
  code: number;
}

/** The server refused an order command; `reason` is the constant to decide by, `errors` names the wrong fields. */
export class OrderRefused extends Refused {
  key: string | undefined;
  reason: string;
  fate: Fate;
  retryable: boolean;
  retryAfterMs: number | null;
  errors: Record<string, string>;
}

/** The values of one topic, in order, none twice, for one reader. Leaving the loop leaves the topic. */
export class Subscription implements AsyncIterable<Value> {
  readonly topic: string;
  /** That of the value that the reader has got last; store it once that is dealt with, to `recover` from. */
  readonly position: Position | null;
  /** Whether that value is from before the connection was there, and came by recovery. */
  readonly catchingUp: boolean;
  /** Resolves when the server has accepted it; rejects with Refused. */
  started(): Promise<this>;
  close(): void;
  [Symbol.asyncIterator](): AsyncIterator<Value>;
}

/** One connection that comes back, and all that is followed over it. */
export class Client {
  /** `url` may be relative to the page and begin with http. */
  constructor(url: string | URL, options?: ClientOptions);
  readonly head: Head | null;
  readonly connected: boolean;
  /**
   * Throws if this client follows the topic already. What the server sends to a user is on `user:<id>`: follow that
   * before anything else, as what came earlier on this connection does not come again.
   */
  subscribe(topic: string, options?: SubscribeOptions): Subscription;
  /** What came after `since` (without it: all that is kept), or before it, newest first. Rejects with Refused. */
  history(topic: string, options?: { since?: Position; limit?: number; reverse?: boolean }): Promise<Page>;
  /**
   * Place an order; resolves once the server has it on disk, to be executed once. It is asked for under one key over as
   * many connections as it takes. Give a `key` of your own and keep it, to ask again after a reload: what was taken once
   * is found under it. Rejects with OrderRefused.
   */
  execute(order: NewOrder, options?: CallOptions & { key?: string }): Promise<OrderAnswer>;
  /** An order as it is now. Rejects with OrderRefused. */
  order(orderId: string, options?: CallOptions): Promise<OrderAnswer>;
  /** Cancel an order, or ask for that where its transaction may be on its way. Rejects with OrderRefused. */
  cancel(orderId: string, options?: CallOptions): Promise<OrderAnswer>;
  /** The order each time it has changed, never an older state after a newer one, until it has ended. */
  watch(orderId: string): AsyncGenerator<Order, void>;
  /** Tell the server that a message with `ack` was dealt with, so that it does not come again. */
  ack(event: Event): void;
  close(): void;
}
