-- An order that waits for its trigger is PENDING, with a lease until the order expires. The trigger ends the lease.
drop index orders_waiting;
create index orders_ready on orders (priority, id) where status = 'PENDING' and lease_until = 0;
create index orders_resting on orders (lease_until) where status = 'PENDING' and lease_until > 0;
