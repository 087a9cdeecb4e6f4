-- The history. A segment has the trades of a range of slots, with their keys and candles, in tables of its own whose
-- names end in the segment's number. They are made like the tables without a number, which stay empty.
create table history_segments (
  number integer generated always as identity primary key,
  first_slot bigint not null              -- a segment has the slots from here to the first of the next one
);

create table history_slots (
  slot bigint primary key, status smallint not null, parent bigint, reason text
);

create table history_gaps (
  id bigint generated always as identity primary key,
  gap_id text collate "C" not null, feed text collate "C" not null, program text collate "C" not null,
  first bigint not null, last bigint not null, state text not null, reason text not null,
  unique (gap_id, feed, program)
);

create table history_tokens (
  id bigint primary key,                  -- slot << 24 | number in the slot
  mint bytea not null, creator bytea not null, name bytea not null, symbol bytea not null,
  program text not null, signature bytea not null, place text not null, standing smallint not null
);
create index history_tokens_mint on history_tokens (mint, id);
create index history_tokens_creator on history_tokens (creator, id);

create table history_programs (
  id integer generated always as identity primary key,
  program_id text collate "C" not null unique, name text collate "C" not null
);

create table history_keys (
  id integer primary key, key bytea not null unique,
  decimals integer                        -- of a mint, where known
);

-- Base and quote are u64 as signed integers of the same bits; keys are rows of the segment's history_keys.
create table history_trades (
  id bigint primary key,                  -- slot << 24 | number in the slot
  time bigint not null, base bigint not null, quote bigint not null,
  mint integer, quote_mint integer, trader integer, pool integer, authority integer, program integer not null,
  standing smallint not null, sells boolean not null, signature bytea not null, place text not null
);
create index history_trades_mint on history_trades (mint, id);
create index history_trades_trader on history_trades (trader, id);

-- A range of trade ids that contains all trades of the minute, so that queries by time read a range of ids.
create table history_minutes (
  minute bigint primary key, first bigint not null, last bigint not null
);

create table history_candles (
  mint integer not null, quote_mint integer not null, minute integer not null, trades integer not null,
  first bigint not null, last bigint not null,
  base_high bigint not null, base_low bigint not null, quote_high bigint not null, quote_low bigint not null,
  open bigint, open_base bigint, open_quote bigint, high bigint, high_base bigint, high_quote bigint,
  low bigint, low_base bigint, low_quote bigint, close bigint, close_base bigint, close_quote bigint,
  primary key (mint, quote_mint, minute)
) with (fillfactor = 80);
