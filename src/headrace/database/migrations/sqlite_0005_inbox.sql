-- Inboxes: messages that users have not acknowledged yet. Each user's log counts from 1 within its epoch.
create table inbox_users (
  user_id text primary key,
  epoch text not null,
  top integer not null,                    -- offset of the newest message
  letters integer not null,                -- number of messages kept, and their bytes
  bytes integer not null,
  lost integer not null default 0,         -- dropped unacknowledged: number, first and last offset
  lost_first integer not null default 0,
  lost_last integer not null default 0,
  touched integer not null                 -- ms
) strict, without rowid;

create table inbox (
  user_id text not null,
  number integer not null,                 -- the offset
  event_id text not null,
  data text not null,                      -- JSON
  size integer not null,
  ack integer not null,                    -- 1: waits to be acknowledged
  at integer not null,                     -- ms
  primary key (user_id, number)
) strict;

create index inbox_old on inbox (ack, at);

create table broadcasts (
  key text primary key,
  fingerprint text not null,
  answer text,                             -- null: not answered yet
  at integer not null
) strict, without rowid;

create index broadcasts_old on broadcasts (at);
