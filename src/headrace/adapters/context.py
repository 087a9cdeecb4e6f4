"""The parts of a process that adapters may use."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from headrace.decoders.registry import Programs
from headrace.model.errors import TransientError
from headrace.model.facts import News
from headrace.model.updates import Commitment
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc

Patience: TypeAlias = Callable[[TransientError], None] | None
"""Called with the error if the server or file of an adapter can't be reached when the adapter is opened.

`open` then returns. Every method of the adapter raises TransientError until a later call can connect. If it is None,
`open` raises the error instead.
"""


class Cover(NamedTuple):
    """Slots, both ends included, of which a connection has certainly delivered all changes of an account."""

    first: int
    upto: int


class AccountFeed(Protocol):
    """The stream of this process, for adapters that need accounts to be current."""

    @property
    def commitment(self) -> Commitment:
        """The commitment at which the stream delivers accounts."""

    def attach(self, sink: Callable[[Sequence[News]], None]) -> Callable[[], None]:
        """Call `sink` with all facts, by the rules of `FactConsumer`. Call the returned function to stop."""

    def follow(self, keys: Collection[str]) -> None:
        """Subscribe to these accounts, and no longer to those of the previous call."""

    def covers(self, key: str) -> Sequence[Cover]:
        """Return the slots that each live connection covers of a followed account.

        Their facts may not have arrived yet.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """Parts of a process that an adapter may use between `open` and `close`.

    The process owns all parts, and closes none before the adapter is closed.
    - `tasks`: runs the adapter's own tasks, which the adapter cancels in `close`.
    - `programs`: returns the layouts of all programs. The first call loads them, which takes long, so call it in a
      thread.
    - `resolve`: returns a program's id by name. Raises KeyError for an unknown name.
    - `generation`: the first part of the epochs of all topics. For a live service it is random, so that no client
      continues at an offset of an earlier start. For a replay it is the recording's id, so that every replay has the
      same epochs.
    - `accounts`: None in a process that reads no stream.
    """

    clock: Clock
    metrics: Metrics
    health: Health
    tasks: Supervisor
    rpc: Rpc
    programs: Callable[[], Programs]
    resolve: Callable[[str], str]
    generation: str
    patience: Patience = None
    accounts: AccountFeed | None = None
