-- Fills of a user's orders, in the order of the log.
create index order_events_fills on order_events (user_id, position) where kind = 'landed';
