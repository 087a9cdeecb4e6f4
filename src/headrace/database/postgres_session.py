"""Connections to PostgreSQL with the session settings that orders need."""

from typing import Final

import asyncpg

from headrace.database.postgres_group_commit import AWAY, Db, away
from headrace.model.errors import ConfigError, TransientError

TIMEOUT_S: Final = 10.0
PATIENT_S: Final = 3.0
"""Maximum seconds that a start waits for a database before it continues without one."""
OLDEST: Final = 14
SESSION: Final = {
    "application_name": "headrace",
    "search_path": "headrace",
    "default_transaction_isolation": "read committed",
    # If a process hangs in a transaction, its row locks must be released before its leases end.
    "idle_in_transaction_session_timeout": "2s",
    "lock_timeout": "5s",
    # Plans are cached. A plan made for a small table must not scan the whole table once the table has grown.
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
}
_DURABLE: Final = """select set_config('synchronous_commit', 'on', false)
    where current_setting('synchronous_commit') = 'off'"""
_REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


async def connect(url: str, timeout_s: float = TIMEOUT_S) -> Db:
    """Return a connection that commits durably: a commit that returned is on disk.

    Raises ConfigError or TransientError.
    """
    try:
        db = await asyncpg.connect(url, timeout=timeout_s, command_timeout=TIMEOUT_S, server_settings=SESSION)
    except _REFUSED as error:
        raise ConfigError("DATABASE_URL", f"a database that refuses: {error}", "one that may be used") from error
    except ValueError as error:
        raise ConfigError("DATABASE_URL", "a URL that can't be read", "postgresql://user@host/name") from error
    except AWAY as error:
        raise away(error) from error
    if db.get_server_version().major < OLDEST:
        db.terminate()
        raise ConfigError("DATABASE_URL", f"PostgreSQL {db.get_server_version().major}", f"{OLDEST} or newer")
    try:
        await db.execute(_DURABLE)
    except AWAY as error:
        db.terminate()
        raise away(error) from error
    return db


async def reconnect(url: str) -> Db:
    """Connect again. Raises TransientError even if the server refuses, because it may accept a later try."""
    try:
        return await connect(url)
    except ConfigError as error:
        raise TransientError(str(error)) from error
