// Types of the client. Offsets, slots and amounts are text, because a JavaScript number can't hold all of them.

/** A place in a topic's log: the place of the last message received. */
export interface Position {
  epoch: string;
  offset: string;
}

/** Place of an event on the chain, and its commitment when it was sent. */
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

/** An event. An event that comes again under the same `event_id` replaces the first. */
export interface Event<Data = any> extends Recorded {
  type: "event";
  event_id: string;
  data: Data;
  chain?: Chain;
  /** The server keeps the message until `Client.ack`. */
  ack?: boolean;
}

/** The data of an event on `transfers:<mint or wallet>`: docs/reference/topics.md. */
export interface TokenTransfer {
  type: "TokenTransfer";
  kind: "transfer" | "mint" | "burn";
  program_id: string;
  mint: string | null;
  decimals: number | null;
  source: string | null;
  source_owner: string | null;
  destination: string | null;
  destination_owner: string | null;
  amount: string;
  fee: string | null;
  authority: string | null;
}

/** The data of an event on `quotes:<mint in>:<mint out>:<amount>`: docs/reference/topics.md. */
export type QuoteData = ({ type: "Quote" } & Offer) | NoQuote;

/** No venue gives a quote now. `leftOut`: venue → the reason. */
export interface NoQuote {
  type: "NoQuote";
  inputMint: string;
  outputMint: string;
  amountIn: string;
  reason: string;
  leftOut: Record<string, string>;
  slot: null;
}

/** All events of this slot on this topic now have this commitment. */
export interface Promote extends Recorded {
  type: "promote";
  data: { slot: string; commitment: string };
}

/** These events did not happen after all: undo their effects. */
export interface Retract extends Recorded {
  type: "retract";
  data: { event_ids: string[]; reason: string };
}

/** Slots (both ends included) in which the server may have missed updates. A later Gap with this `gap_id` ends it. */
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

/** `dropped` messages with offsets from `from_offset` to `to_offset` will not come. */
export interface Lag {
  type: "lag";
  topic: string;
  data: { epoch: string; from_offset: string; to_offset: string; dropped: number };
}

/** A page of the topic's state. The `first` replaces the state that you have; after the `last`, live messages follow. */
export interface Snapshot extends Recorded {
  type: "snapshot";
  first: boolean;
  last: boolean;
  data: { as_of_slot: string | null; items: Event[]; next: unknown; complete?: boolean };
}

/** Messages after `before` are gone: discard your state of this topic. `now` is null if a snapshot follows. */
export interface NotRecovered {
  type: "not_recovered";
  topic: string;
  before: Position;
  now: Position | null;
}

export type Value = Event | Promote | Retract | Gap | Lag | Snapshot | NotRecovered;

/** The newest slots that the server knows. In a quiet market `processed` keeps growing; with a dead feed it stops. */
export interface Head {
  atMs: number;
  processed: string | null;
  confirmed: string | null;
  upstream_lag_ms: number | null;
}

/** A page of a topic's log. There are more pages until an item has this `offset`. */
export interface Page extends Position {
  topic: string;
  items: (Event | Promote | Retract | Gap)[];
}

/** An order with the fields of `GET /api/orders/{id}`; amounts are text. */
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

/** What became of an order. After "unknown", repeat the command with the same key. */
export type Fate = "not_executed" | "executed" | "unknown";

/** The body of `POST /api/orders/execute`; amounts and prices are text. */
export interface NewOrder {
  tokenIn: string;
  tokenOut: string;
  /** Whole coins, as decimal text. Give either this or `amount`, in base units. */
  uiAmount?: string;
  amount?: string;
  type?: "market" | "limit" | "stop";
  slippageBps?: number;
  /** Time after the acceptance within which the execution must begin. */
  expiresInMs?: number;
  userId?: string;
  [field: string]: any;
}

/** The server's answer to an order command. */
export interface OrderAnswer {
  order: Order;
  /** An earlier request with this key placed the order. */
  replayed: boolean;
  /** The cancel is only requested, as the order's transaction may still land. */
  requested: boolean;
}

/** The parameters of `GET /api/quote`; `amount` is in base units, as text. */
export interface AskQuote {
  inputMint: string;
  outputMint: string;
  amount: string;
  slippageBps?: number;
  swapMode?: "ExactIn" | "ExactOut";
}

/** An offer with the fields of `GET /api/quote`; amounts are base units as text. */
export interface Offer {
  inputMint: string;
  outputMint: string;
  amountIn: string;
  amountOut: string;
  minOut: string;
  maxIn: string | null;
  swapMode: "ExactIn" | "ExactOut";
  slippageBps: number;
  venue: string;
  feeBps: number;
  fees: { to: string; mint: string; amount: string }[];
  impact: string | null;
  price: string | null;
  route: { pool: string; inputMint: string; outputMint: string; amountIn: string | null; amountOut: string | null }[];
  slot: number | null;
  quotes: { dex: string; amountOut: string; feeBps: number; price: string | null }[];
  /** Venue that gave no quote → the reason. */
  leftOut: Record<string, string>;
}

export interface CallOptions {
  /** Stops waiting: the call rejects with the signal's reason, and the order's fate is unknown. */
  signal?: AbortSignal;
}

export interface ClientOptions {
  /**
   * A JSON Web Token, or a function that returns a new one. The function is called before each connection, and when the
   * server warns that the old token expires. A TypeError (as `fetch` throws without network) or a TimeoutError of the
   * function counts as a lost connection; any other error ends the client.
   */
  token?: string | (() => string | Promise<string>);
  /** Where the token is sent: as a subprotocol of the handshake, or in the first frame. */
  credential?: "subprotocol" | "frame";
  /** Most values of a subscription that wait for its reader. */
  queue?: number;
  /** Called each time the server has welcomed a connection. */
  onConnect?: () => void;
  /** Called for each lost connection and each failed attempt. */
  onLoss?: (why: string, nextAttemptInMs: number) => void;
  /** The first delay before a reconnect, and the longest, in ms. */
  retryMs?: number;
  retryMsMax?: number;
  /** Longest time in ms that a connection may take to open, before another is tried. */
  openMs?: number;
  /** For runtimes without a WebSocket of their own. */
  WebSocket?: typeof WebSocket;
}

export interface SubscribeOptions {
  filter?: object;
  /** A stored `Subscription.position` to continue from. */
  recover?: Position | null;
  snapshot?: boolean;
  conflate?: { key: string; every_ms: number };
  onSlow?: "disconnect" | "conflate" | "drop_oldest";
}

/** A final refusal by the server; `code` is its error code or close code. A retry would not help. */
export class Refused extends Error {
  code: number;
}

/** The server refused an order command. `reason` is the constant for programs; `errors` names the wrong fields. */
export class OrderRefused extends Refused {
  key: string | undefined;
  reason: string;
  fate: Fate;
  retryable: boolean;
  retryAfterMs: number | null;
  errors: Record<string, string>;
}

/** The values of one topic, in order, none twice, for one reader. The end of the loop ends the subscription. */
export class Subscription implements AsyncIterable<Value> {
  readonly topic: string;
  /** Position of the last value that the reader got. Store it once the value is processed, for `recover`. */
  readonly position: Position | null;
  /** Whether the last value that the reader got had been missed, and came by recovery. */
  readonly catchingUp: boolean;
  /** Resolves once the server has accepted the subscription; rejects with Refused. */
  started(): Promise<this>;
  close(): void;
  [Symbol.asyncIterator](): AsyncIterator<Value>;
}

/** One connection, opened again after a loss, for all subscriptions and calls. */
export class Client {
  /** `url` may be relative to the page and begin with http. */
  constructor(url: string | URL, options?: ClientOptions);
  readonly head: Head | null;
  readonly connected: boolean;
  /**
   * Throws if this client already follows the topic. Messages to a user are on `user:<id>`: follow that topic first, as
   * messages that arrived earlier on this connection do not come again.
   */
  subscribe(topic: string, options?: SubscribeOptions): Subscription;
  /**
   * A page of the topic's log: messages after `since` (without it: all kept), or with `reverse` before it, newest first.
   * Rejects with Refused.
   */
  history(topic: string, options?: { since?: Position; limit?: number; reverse?: boolean }): Promise<Page>;
  /**
   * Place an order. Resolves once the server has stored the order; it will be executed at most once. The request is
   * repeated under one key over as many connections as necessary. To repeat an order after a reload, pass your own `key`
   * and keep it: the server then returns the order that it accepted under this key. Rejects with OrderRefused.
   */
  execute(order: NewOrder, options?: CallOptions & { key?: string }): Promise<OrderAnswer>;
  /** The current state of an order. Rejects with OrderRefused. */
  order(orderId: string, options?: CallOptions): Promise<OrderAnswer>;
  /** Cancel an order, or only request it while its transaction may still land. Rejects with OrderRefused. */
  cancel(orderId: string, options?: CallOptions): Promise<OrderAnswer>;
  /** The best offer of all venues; nothing is ordered. Rejects with OrderRefused; `no_quote`: no venue gives one now. */
  quote(asked: AskQuote, options?: CallOptions): Promise<Offer>;
  /** Yields the order each time it has changed, until it has ended; never an older state after a newer one. */
  watch(orderId: string): AsyncGenerator<Order, void>;
  /** Acknowledge a message that has `ack`, so that the server does not send it again. */
  ack(event: Event): void;
  close(): void;
}
