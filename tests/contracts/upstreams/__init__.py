"""Upstreams for the contract suite of sources: one module for each kind of the register, named as the kind is.

Each module has a class `Upstream` that follows the port below. A new source brings such a module, and the suite covers
it from then on.
"""

from collections.abc import Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol, Self, TypeAlias, cast

import msgspec

from headrace.testing.ledger import made_up_key

PROGRAM = made_up_key("program")
OTHER = made_up_key("other program")
FEED, OTHER_FEED = f"logs:{PROGRAM}", f"logs:{OTHER}"


class Land(NamedTuple):
    """Transaction `number` lands on the feed of `program`; the upstream sends it `times` times."""

    number: int
    program: str = PROGRAM
    times: int = 1


class Spoil(NamedTuple):
    """The upstream sends something on the feed of PROGRAM that can't be read."""


class Lose(NamedTuple):
    """All connections end, and transaction `number` lands before there is another one."""

    number: int


Step: TypeAlias = Land | Spoil | Lose


class Upstream(Protocol):
    """Give a source something to read. Use as `async with`; then `prepare` before the source is opened, and
    `perform` while it runs: one of both lets the steps happen.
    """

    LIVE: bool
    """Whether it goes on for ever, can be lost, and is subscribed to; a recording is over at some time."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    @property
    def settings(self) -> msgspec.Struct:
        """Settings of a source that subscribes to FEED."""

    @property
    def unusable(self) -> msgspec.Struct:
        """Settings with which no source can be opened."""

    @property
    def http_url(self) -> str:
        """Return where the ledger can be read."""

    async def prepare(self, steps: Sequence[Step]) -> None:
        """Make ready for a source."""

    async def covered(self, component: Any) -> None:
        """Return when the source misses nothing more; `component` returns its line on the health board."""

    async def perform(self, steps: Sequence[Step]) -> None:
        """Let the steps happen."""

    def go_on(self) -> None:
        """Let the chain go on by a slot."""


def upstream_of(kind: str) -> type[Upstream]:
    """Return the upstream for a kind of source. Raises ModuleNotFoundError where the kind has none yet."""
    return cast("type[Upstream]", import_module(f"{__name__}.{kind}").Upstream)
