-- How far time is for this database, in ms: ages are measured by it, and by no clock. It begins where the rows are.
create table observed (
  name text primary key,
  ms integer not null
) strict, without rowid;

insert into observed (name, ms)
  select 'time', max(at) from (
    select max(at) as at from inbox union all select max(at) from broadcasts union all select max(touched) from inbox_users
  ) having max(at) is not null;

-- Keys live as long as their orders.
drop index idempotency_keys_old;
