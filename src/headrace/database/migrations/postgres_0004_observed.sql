-- How far time is for this database, in ms: ages are measured by it, and by no clock. It begins where the rows are.
create table observed (
  name text primary key,
  ms bigint not null
);

insert into observed (name, ms)
  select 'time', max(at) from (
    select max(at) as at from inbox union all select max(at) from broadcasts union all select max(touched) from inbox_users
  ) found having max(at) is not null;

-- What a database that failed must be able to take before it counts as usable again.
create table room (
  id integer primary key,
  data bytea not null
);

-- Keys live as long as their orders.
drop index idempotency_keys_old;
