-- Inboxes: messages that users have not acknowledged yet. sqlite_0005_inbox.sql explains the columns.
create table inbox_users (
  user_id text collate "C" primary key,
  epoch text not null,
  top bigint not null,
  letters bigint not null,
  bytes bigint not null,
  lost bigint not null default 0,
  lost_first bigint not null default 0,
  lost_last bigint not null default 0,
  touched bigint not null
) with (fillfactor = 70);

create table inbox (
  user_id text collate "C" not null,
  number bigint not null,
  event_id text not null,
  data text not null,
  size bigint not null,
  ack smallint not null,
  at bigint not null,
  primary key (user_id, number)
);

create index inbox_old on inbox (ack, at);

create table broadcasts (
  key text primary key,
  fingerprint text not null,
  answer text,
  at bigint not null
);

create index broadcasts_old on broadcasts (at);
