-- Observed time of this database, in ms. Ages are measured in it, not by a clock. It begins at the newest row's time.
create table observed (
  name text primary key,
  ms integer not null
) strict, without rowid;

insert into observed (name, ms)
  select 'time', max(at) from (
    select max(at) as at from inbox union all select max(at) from broadcasts union all select max(touched) from inbox_users
  ) having max(at) is not null;

-- Keys are kept as long as their orders.
drop index idempotency_keys_old;
