"""Messages that users have not acknowledged yet, and the idempotency keys of broadcasts.

Port, settings and register.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import SameAs, Setting
from headrace.database.place import Place, place_of
from headrace.model.errors import TransientError
from headrace.model.events import Position

KEY_KEPT_MS: Final = 25 * 3600 * 1000
"""Time in ms for which an idempotency key is kept: one day and one hour."""

PENDING_MS: Final = 30_000
"""Maximum time in ms that a broadcast may stay unfinished. After it, a request with the same key takes over."""


class InboxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[inbox]`: limits for each user. A user's next connection reports which unacknowledged messages were dropped."""

    file: Annotated[
        str,
        Setting("SQLite file of the inboxes, if DATABASE_URL names no database", env=("INBOX_FILE",), kind="file"),
    ] = "headrace-inbox.db"
    database_url: Annotated[str | None, SameAs("core.database_url")] = None
    messages_max: Annotated[
        int, msgspec.Meta(ge=1, le=100_000), Setting("most messages kept for one user", env=("INBOX_MAX_MESSAGES",))
    ] = 1_000
    bytes_max: Annotated[
        int, msgspec.Meta(ge=1024), Setting("most bytes of messages kept for one user", env=("INBOX_MAX_BYTES",))
    ] = 1_048_576
    age_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("longest time that a message waits to be acknowledged", env=("INBOX_AGE_S",))
    ] = 7 * 86_400
    passing_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting(
            "longest time that a message without acknowledgement is kept for slow clients", env=("INBOX_PASSING_S",)
        ),
    ] = 300
    keys_max: Annotated[
        int,
        msgspec.Meta(ge=1),
        Setting("most idempotency keys kept; with more, new keys are refused", env=("BROADCAST_MAX_KEYS",)),
    ] = 100_000

    @property
    def place(self) -> Place:
        """The database that keeps the messages."""
        return place_of(self.database_url, self.file)


class Letter(NamedTuple):
    """A message to one user's inbox. `data` is one line of JSON. With `ack`, the message is kept until acknowledged."""

    user_id: str
    event_id: str
    data: str
    ack: bool


class Kept(NamedTuple):
    """An inbox message with its place in its user's log."""

    offset: int
    event_id: str
    data: str
    ack: bool


class Lost(NamedTuple):
    """Inbox messages that were dropped without acknowledgement: their number, and the first and last offset."""

    letters: int
    first: int
    last: int


class Box(NamedTuple):
    """State of a user's log: newest position, losses not acknowledged yet, and number of unacknowledged messages."""

    top: Position
    lost: Lost | None
    waiting: int


class Known(NamedTuple):
    """Earlier use of an idempotency key. `same` is whether the request was the same.

    If `answer` is None, that request has not finished.
    """

    same: bool
    answer: str | None


Compose: TypeAlias = Callable[[Sequence[Position]], str]
"""Returns the answer to a broadcast, given the positions of its messages. Called inside the transaction."""


class Inbox(Protocol):
    """A log of messages for each user.

    Within an epoch, offsets count from 1 without a gap. Epochs outlive the process.

    Atomicity: every method is one transaction.
    Durability: when a method returns, its changes are on disk.
    Acknowledgement: cumulative and idempotent. Messages without `ack` are kept only for a short time, for connections
    that fell behind.
    Limits: per user by number, bytes and age. The oldest messages are dropped first, and unacknowledged ones are
    recorded as lost. A user without messages is deleted after `age_s`; the next message begins a new epoch. Ages are
    measured in the time during which the database was in use (`database/observed.py`), not by a wall clock.

    Each method raises TransientError if the database can't be used. Its changes may or may not have been made.
    """

    on_trouble: Callable[[TransientError], None]
    """Called on the event loop with the error when the database can't be used."""

    async def begin(self, key: str, fingerprint: str) -> Known | None:
        """Reserve an idempotency key for a broadcast. None: the key is now reserved, and `put` must complete it.

        Raises RequestError 111 if the limit of keys is reached.
        """

    async def put(self, letters: Sequence[Letter], key: str | None, compose: Compose) -> tuple[list[Position], str]:
        """Append messages in order, and store the answer for the key. Return their positions and the answer."""

    async def box(self, user_id: str) -> Box | None:
        """Return the state of the user's log; None for a user who never had a message."""

    async def after(self, user_id: str, offset: int, limit: int, *, unacknowledged: bool) -> Sequence[Kept]:
        """Return messages after `offset`, oldest first.

        If `unacknowledged`, return only messages that wait to be acknowledged.
        """

    async def acknowledge(self, user_id: str, offset: int) -> None:
        """Delete the messages up to `offset`, which have arrived. Messages that are already gone are ignored."""

    async def tidy(self) -> int:
        """Delete messages and keys that are too old. Return how many messages were lost."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError if no message can be stored now.

        If `thorough`, raise it even if only disk space is missing.
        """

    async def close(self) -> None:
        """Finish queued work and release all resources. Later calls raise TransientError."""


INBOXES: Final[Register[Inbox]] = Register(
    "inbox",
    {"postgres": "headrace.inbox.postgres:PostgresInbox", "sqlite": "headrace.inbox.sqlite:SqliteInbox"},
    InboxSettings,
)
"""All inboxes. The `kind` of `InboxSettings.place` names the one that is used."""
