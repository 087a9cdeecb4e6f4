"""Durable checkpoints of sources: port, settings and register."""

from collections.abc import Callable, Mapping
from typing import Annotated, Final, Protocol

import msgspec

from headrace.adapters import Register
from headrace.config import SameAs, Setting
from headrace.database.place import Place, place_of
from headrace.model.errors import TransientError


class CheckpointSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[checkpoints]`: whether a restarted service fills the time for which it was off. Kept beside the inboxes."""

    enabled: Annotated[
        bool,
        Setting("after a restart, fill or declare the slots since the last run", env=("CHECKPOINTS_ENABLED",)),
    ] = True
    interval_s: Annotated[
        float, msgspec.Meta(gt=0), Setting("seconds between checkpoints", env=("CHECKPOINTS_INTERVAL_S",))
    ] = 2.0
    file: Annotated[str, SameAs("inbox.file")] = "headrace-inbox.db"
    database_url: Annotated[str | None, SameAs("core.database_url")] = None

    @property
    def place(self) -> Place:
        """The database that keeps the checkpoints."""
        return place_of(self.database_url, self.file)


class Checkpoints(Protocol):
    """Feed → slot for each source, by the source's name in the register. One process writes.

    Atomicity: `save` replaces the checkpoint of one source, or changes nothing. Durability: when `save` returns, the
    checkpoint is on disk. Each method raises TransientError if the database can't be used.
    """

    on_trouble: Callable[[TransientError], None]
    """Called on the event loop with the error when the database can't be used."""

    async def load(self) -> Mapping[str, Mapping[str, int]]:
        """Return source → feed → the slot up to which everything was delivered and processed, or declared as a gap."""

    async def save(self, source: str, covered: Mapping[str, int]) -> None:
        """Replace the checkpoint of a source; feeds that `covered` lacks are forgotten."""

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError if no checkpoint can be stored now. `thorough`: also if the disk has no space."""

    async def close(self) -> None:
        """Finish queued work and release all resources. Later calls raise TransientError."""


CHECKPOINTS: Final[Register[Checkpoints]] = Register(
    "checkpoints",
    {
        "postgres": "headrace.sources.checkpoints.postgres:PostgresCheckpoints",
        "sqlite": "headrace.sources.checkpoints.sqlite:SqliteCheckpoints",
    },
    CheckpointSettings,
)
"""All stores of checkpoints. The `kind` of `CheckpointSettings.place` names the one in use."""
