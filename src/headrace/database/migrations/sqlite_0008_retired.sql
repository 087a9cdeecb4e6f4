-- A retired order: its request, its outcome and its fill. Its keys stay.
create table retired_orders (
  id text primary key,
  user_id text not null,
  status text not null,
  seq integer not null,
  epoch integer not null,
  cancel_requested integer not null,
  request text not null,                   -- JSON
  outcome text not null,                   -- JSON, without quotes
  created_at integer not null,             -- ms
  updated_at integer not null,
  landed_position integer,                 -- null: the order moved nothing
  landed_at integer
) strict, without rowid;

create index retired_orders_fills on retired_orders (user_id, landed_position) where landed_position is not null;

create view known_orders as
  select id, user_id, request, outcome, status, seq, epoch, cancel_requested, created_at, updated_at from orders
  union all
  select id, user_id, request, outcome, status, seq, epoch, cancel_requested, created_at, updated_at from retired_orders;

-- Observed time at which the order was first found to have ended and to be final.
alter table orders add column ended_ms integer;
create index orders_over on orders (id)
  where ended_ms is null and status in ('CONFIRMED', 'FAILED', 'CANCELLED', 'EXPIRED');
create index orders_ended on orders (ended_ms) where ended_ms is not null;

-- A user's fills added up to a position of the log, below which nothing changes any more. A missing row is computed
-- from the log again.
create table portfolios (
  user_id text primary key,
  position integer not null,
  state text not null                      -- JSON
) strict, without rowid;
