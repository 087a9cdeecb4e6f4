-- Orders: the row is both the truth and the queue.
create table orders (
  id text primary key,                     -- UUIDv7: sorts by time
  user_id text not null,
  status text not null check (status in
    ('PENDING', 'ROUTING', 'BUILDING', 'SUBMITTED', 'CONFIRMED', 'FAILED', 'CANCELLED', 'EXPIRED')),
  priority integer not null,               -- 0 urgent … 9
  seq integer not null,                    -- of the newest event
  epoch integer not null default 0,        -- grows with each claim: the fencing token
  lease_until integer not null default 0,  -- ms; a pause before a retry is a lease until then
  cancel_requested integer not null default 0,
  mint_in text not null,
  mint_out text not null,
  request text not null,                   -- JSON, never changes
  outcome text not null,                   -- JSON
  created_at integer not null,             -- ms
  updated_at integer not null
) strict, without rowid;

create index orders_waiting on orders (priority, id) where status = 'PENDING';
create index orders_leased on orders (lease_until) where status in ('ROUTING', 'BUILDING', 'SUBMITTED');
create index orders_of_user on orders (user_id, id);

-- Events for the owner; seq has no breaks. `position` is the commit order of the whole table.
create table order_events (
  position integer primary key autoincrement,
  order_id text not null,
  user_id text not null,
  seq integer not null,
  kind text not null,
  status text not null,
  at integer not null,
  data text not null,
  unique (order_id, seq)
) strict;

-- Signed bytes, stored before the first send.
create table attempts (
  order_id text not null,
  number integer not null,
  status text not null check (status in
    ('JOURNALED', 'SENT', 'UNKNOWN', 'LANDED_OK', 'LANDED_ERR', 'EXPIRED_PROVEN')),
  signature text not null unique,
  raw blob not null,
  last_valid_height integer not null,
  quote text not null,
  min_out text not null,                   -- u64 does not fit an integer here
  primary key (order_id, number)
) strict, without rowid;

create table idempotency_keys (
  user_id text not null,
  key text not null,
  fingerprint text not null,
  order_id text not null,
  created_at integer not null,
  primary key (user_id, key)
) strict, without rowid;

create index idempotency_keys_old on idempotency_keys (created_at);

create table rate (
  name text primary key,
  tokens real not null,
  at integer not null
) strict, without rowid;
