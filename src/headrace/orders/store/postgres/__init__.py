"""Orders in PostgreSQL."""

from headrace.orders.store.postgres.adapter import PostgresStore

__all__ = ["PostgresStore"]
