"""SQLite and PostgreSQL as every room with rows uses them: connections, group commits, migrations, observed time."""

from headrace.adapters import Patience

__all__ = ["Patience"]
