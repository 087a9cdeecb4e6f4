-- How many orders of a user rest.
create index orders_resting_of_user on orders (user_id) where status = 'PENDING' and lease_until > '-infinity';
