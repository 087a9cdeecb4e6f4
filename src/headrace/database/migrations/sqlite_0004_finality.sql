-- An executed order keeps its last lease until its landing is final.
create index orders_unfinal on orders (lease_until) where status = 'CONFIRMED' and lease_until > 0;
