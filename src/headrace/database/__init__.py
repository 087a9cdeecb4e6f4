"""SQLite and PostgreSQL as every room with rows uses them: connections, group commits, migrations, observed time."""

from collections.abc import Callable
from typing import TypeAlias

from headrace.model.errors import TransientError

Patience: TypeAlias = Callable[[TransientError], None] | None
"""Given to the `open` of a store or an inbox: a database that can't be had for now is no error then, but goes to this;
every verb raises TransientError until it can be had."""
