"""Messages that users have not acknowledged yet, and broadcasts that were made: port, settings and register."""

from collections.abc import Callable, Sequence
from typing import Annotated, Final, NamedTuple, Protocol, TypeAlias

import msgspec

from headrace.adapters import Register
from headrace.config import SameAs, Setting
from headrace.database.place import Place, place_of
from headrace.model.errors import TransientError
from headrace.model.events import Position

KEY_KEPT_MS: Final = 25 * 3600 * 1000
"""How long an idempotency key is known: a day, and an hour."""

PENDING_MS: Final = 30_000
"""A broadcast that was begun so long ago and not settled is taken over by the next request under its key."""


class InboxSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[inbox]`: what is kept for each user. What is dropped unacknowledged is told with the next connection."""

    file: Annotated[
        str,
        Setting("SQLite file of the inboxes where DATABASE_URL names no database", env=("INBOX_FILE",), kind="file"),
    ] = "headrace-inbox.db"
    database_url: Annotated[str | None, SameAs("core.database_url")] = None
    messages_max: Annotated[
        int, msgspec.Meta(ge=1, le=100_000), Setting("messages kept for one user", env=("INBOX_MAX_MESSAGES",))
    ] = 1_000
    bytes_max: Annotated[
        int, msgspec.Meta(ge=1024), Setting("bytes of messages kept for one user", env=("INBOX_MAX_BYTES",))
    ] = 1_048_576
    age_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("how long a message waits to be acknowledged", env=("INBOX_AGE_S",))
    ] = 7 * 86_400
    passing_s: Annotated[
        float,
        msgspec.Meta(gt=0),
        Setting("how long a message that needs no acknowledgement is kept for slow clients", env=("INBOX_PASSING_S",)),
    ] = 300
    keys_max: Annotated[
        int, msgspec.Meta(ge=1), Setting("idempotency keys known; beyond it none is taken", env=("BROADCAST_MAX_KEYS",))
    ] = 100_000

    @property
    def place(self) -> Place:
        """Return where messages are kept."""
        return place_of(self.database_url, self.file)


class Letter(NamedTuple):
    """A message to one user. `data` is one JSON value in one line; with `ack` it is kept until acknowledged."""

    user_id: str
    event_id: str
    data: str
    ack: bool


class Kept(NamedTuple):
    """A letter that has its place in its user's log."""

    offset: int
    event_id: str
    data: str
    ack: bool


class Lost(NamedTuple):
    """Letters that nobody acknowledged and that are gone: how many, the first and the last."""

    letters: int
    first: int
    last: int


class Box(NamedTuple):
    """A user's log: its newest position, what was lost of it and not yet acknowledged, and how many letters wait."""

    top: Position
    lost: Lost | None
    waiting: int


class Known(NamedTuple):
    """The use of an idempotency key. `answer` None: another request under the key is still at work."""

    same: bool
    answer: str | None


Compose: TypeAlias = Callable[[Sequence[Position]], str]
"""Make the answer of a broadcast from the positions of its letters; runs inside the transaction."""


class Inbox(Protocol):
    """Each user has a log of letters: offsets count from 1 without a hole within an epoch, which outlives the process.

    Atomicity: every verb is one transaction, or nothing. Durability: a verb that returned is on disk.
    Acknowledging is cumulative and idempotent. Letters without `ack` are kept a short while only, for connections that
    fell behind. Bounds: per user by number, bytes and age; the oldest go first, and what was not acknowledged is noted
    as lost. A user of whom nothing is left is forgotten after `age_s` and begins a new epoch. Ages are measured by the
    time that the database has seen go by while it was in use, and by no clock.
    Each verb raises TransientError when the database is away: then it may or may not have happened.
    """

    on_trouble: Callable[[TransientError], None]
    """Called on the event loop when the database could not be used."""

    async def begin(self, key: str, fingerprint: str) -> Known | None:
        """Take an idempotency key for a broadcast; None: it is taken now, `put` will settle it.

        Raise RequestError 111 when no more keys are taken.
        """

    async def put(self, letters: Sequence[Letter], key: str | None, compose: Compose) -> tuple[list[Position], str]:
        """Append letters, in order, and settle the key with the answer; return their positions, and the answer."""

    async def box(self, user_id: str) -> Box | None:
        """Return the user's log; None for a user that never had a letter."""

    async def after(self, user_id: str, offset: int, limit: int, *, unacknowledged: bool) -> Sequence[Kept]:
        """Return letters beyond `offset`, oldest first; on request only those that wait to be acknowledged."""

    async def acknowledge(self, user_id: str, offset: int) -> None:
        """Drop the letters up to `offset`, which have arrived. Nothing happens for letters that are gone already."""

    async def tidy(self) -> int:
        """Forget what is too old; return how many letters were lost."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError when a letter could not be kept now. `thorough`: also when there is no room for more."""

    async def close(self) -> None:
        """Finish what waits and release what the inbox holds; later calls raise TransientError."""


INBOXES: Final[Register[Inbox]] = Register(
    "inbox",
    {"postgres": "headrace.inbox.postgres:PostgresInbox", "sqlite": "headrace.inbox.sqlite:SqliteInbox"},
    InboxSettings,
)
"""All inboxes. The kind of database that `InboxSettings.place` names is the one that is used."""
