-- Number of a user's orders that wait for their trigger.
create index orders_resting_of_user on orders (user_id) where status = 'PENDING' and lease_until > 0;
