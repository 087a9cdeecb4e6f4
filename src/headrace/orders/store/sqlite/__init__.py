"""Orders in one SQLite file."""

from headrace.orders.store.sqlite.adapter import SqliteStore

__all__ = ["SqliteStore"]
