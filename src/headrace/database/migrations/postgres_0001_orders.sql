-- Orders: the row is both the truth and the queue. sqlite_0001_orders.sql explains what both databases share.
create table orders (
  id text collate "C" primary key,         -- UUIDv7: sorts by time
  user_id text not null,
  status text not null check (status in
    ('PENDING', 'ROUTING', 'BUILDING', 'SUBMITTED', 'CONFIRMED', 'FAILED', 'CANCELLED', 'EXPIRED')),
  priority smallint not null,              -- 0 urgent … 9
  seq integer not null,                    -- of the newest event
  epoch bigint not null default 0,         -- grows with each claim: the fencing token
  lease_until timestamptz not null,        -- '-infinity': none; while waiting for the trigger: the expiry
  cancel_requested boolean not null default false,
  mint_in text not null,
  mint_out text not null,
  request text not null,                   -- JSON, never changes
  outcome text not null,                   -- JSON
  created_at bigint not null,              -- ms
  updated_at bigint not null
) with (fillfactor = 70);

create index orders_ready on orders (priority, id) where status = 'PENDING' and lease_until = '-infinity';
create index orders_resting on orders (lease_until) where status = 'PENDING' and lease_until > '-infinity';
create index orders_leased on orders (lease_until) where status in ('ROUTING', 'BUILDING', 'SUBMITTED');
create index orders_unfinal on orders (lease_until) where status = 'CONFIRMED' and lease_until > '-infinity';
create index orders_of_user on orders (user_id, id);

-- Events for the owner; seq has no breaks. `txid` shows which rows a reader has not seen (orders/store/postgres/tail.py).
create table order_events (
  position bigint generated always as identity,  -- not the order of commits
  order_id text collate "C" not null,
  user_id text not null,
  seq integer not null,
  kind text not null,
  status text not null,
  at bigint not null,
  data text not null,
  txid xid8 not null default pg_current_xact_id(),
  primary key (order_id, seq)
);

create index order_events_new on order_events (txid);
create index order_events_fills on order_events (user_id, position) where kind = 'landed';

-- Signed bytes, stored before the first send.
create table attempts (
  order_id text collate "C" not null,
  number integer not null,
  status text not null check (status in
    ('JOURNALED', 'SENT', 'UNKNOWN', 'LANDED_OK', 'LANDED_ERR', 'EXPIRED_PROVEN')),
  signature text not null unique,
  raw bytea not null,
  last_valid_height bigint not null,
  quote text not null,
  min_out text not null,                   -- u64 does not fit a bigint
  primary key (order_id, number)
);

create table idempotency_keys (
  user_id text not null,
  key text not null,
  fingerprint text not null,
  order_id text not null,
  created_at bigint not null,
  primary key (user_id, key)
);

create index idempotency_keys_old on idempotency_keys (created_at);

create table rate (
  name text primary key,
  tokens double precision not null,
  at timestamptz not null
);
