-- Retired orders, and portfolios. sqlite_0008_retired.sql explains the columns.
create table retired_orders (
  id text collate "C" primary key,
  user_id text not null,
  status text not null,
  seq integer not null,
  epoch bigint not null,
  cancel_requested boolean not null,
  request text not null,
  outcome text not null,
  created_at bigint not null,
  updated_at bigint not null,
  landed_position bigint,
  landed_at bigint
);

create index retired_orders_fills on retired_orders (user_id, landed_position) where landed_position is not null;

create view known_orders as
  select id, user_id, request, outcome, status, seq, epoch, cancel_requested, created_at, updated_at from orders
  union all
  select id, user_id, request, outcome, status, seq, epoch, cancel_requested, created_at, updated_at from retired_orders;

alter table orders add column ended_ms bigint;
create index orders_over on orders (id)
  where ended_ms is null and status in ('CONFIRMED', 'FAILED', 'CANCELLED', 'EXPIRED');
create index orders_ended on orders (ended_ms) where ended_ms is not null;

create table portfolios (
  user_id text primary key,
  position bigint not null,
  state text not null
);

-- A transaction gets its number before it draws a position. A number that is read after a position is therefore higher
-- than the numbers of all transactions that drew lower positions.
alter table order_events alter column position drop identity;
create sequence order_events_position_seq owned by order_events.position;
select setval('order_events_position_seq', (select coalesce(max(position), 0) + 1 from order_events), false);
alter table order_events alter column position set default
  case when pg_current_xact_id() is not null then nextval('order_events_position_seq') end;

-- Every transaction that logged an event up to `position` has ended. `next` may replace `position` once every transaction
-- that began before transaction `beyond` has ended; null: not known yet.
create table settled (
  one integer primary key check (one = 1),
  position bigint not null,
  next bigint not null,
  beyond bigint
);
