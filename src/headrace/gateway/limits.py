"""Who may come in, and how long each may take."""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from headrace.gateway.alarms import Alarms
from headrace.gateway.settings import GatewaySettings
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics

K = TypeVar("K", bound=Hashable)


class Deadlines(Generic[K]):
    """Things that must happen within the same time each; setting, clearing and finding what is due cost O(1)."""

    def __init__(self, after_s: float) -> None:
        self.after_s = after_s
        self._due_s: OrderedDict[K, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._due_s)

    def __contains__(self, key: object) -> bool:
        return key in self._due_s

    def set(self, key: K, now_s: float) -> None:
        """Start the time of `key`, anew if it runs already."""
        self._due_s[key] = now_s + self.after_s
        self._due_s.move_to_end(key)

    def clear(self, key: K) -> None:
        self._due_s.pop(key, None)

    def due(self, now_s: float) -> list[K]:
        """Those whose time is over, oldest first; they are cleared."""
        over: list[K] = []
        while self._due_s:
            key, due_s = next(iter(self._due_s.items()))
            if due_s > now_s:
                break
            self._due_s.popitem(last=False)
            over.append(key)
        return over


class Abortable(Hashable, Protocol):
    """Something with a socket that can be dropped at once."""

    def abort(self) -> None: ...


class Filling(Hashable, Protocol):
    """Something whose socket may be full."""

    def still_full(self) -> None:
        """It was full for the whole time."""


class Beating(Hashable, Protocol):
    """Something that gets heartbeats."""

    def ping(self) -> None: ...

    def no_pong(self) -> None: ...


class Waking(Hashable, Protocol):
    """Something that is due at a time of its own."""

    def wake(self) -> None: ...


class Doorkeeper:
    """Counts who is in, and holds everyone's deadlines: requests, heartbeats, slow clients, closing handshakes."""

    def __init__(self, settings: GatewaySettings, clock: Clock, metrics: Metrics) -> None:
        self.settings = settings
        self.clock = clock
        self.draining = False
        self.refused = metrics.counter("gateway_refused", "Handshakes and requests refused at the door", ("status",))
        self.requests: Deadlines[Abortable] = Deadlines(settings.request_s)
        self.stuck: Deadlines[Filling] = Deadlines(settings.slow_abort_s)
        self.closing: Deadlines[Abortable] = Deadlines(settings.close_s)
        self.pings: Deadlines[Beating] = Deadlines(settings.ping_s)
        self.pongs: Deadlines[Beating] = Deadlines(settings.pong_s)
        self.alarms: Alarms[Waking] = Alarms()
        shortest_s = min(settings.request_s, settings.slow_abort_s, settings.close_s, settings.ping_s, settings.pong_s)
        self._round_s = min(0.25, shortest_s / 4)

    def apply(self, settings: GatewaySettings) -> None:
        """Take over what may change live."""
        self.settings = settings

    async def run(self) -> None:
        """Look after the deadlines, for ever."""
        while True:
            await self.clock.sleep(self._round_s)
            self.round()

    def round(self) -> None:
        """Act on everything that is due now."""
        now_s = self.clock.monotonic()
        for deadlines in (self.requests, self.closing):
            for late in deadlines.due(now_s):
                late.abort()
        for full in self.stuck.due(now_s):
            full.still_full()
        for silent in self.pongs.due(now_s):
            silent.no_pong()
        for waking in self.alarms.due(now_s):
            waking.wake()
        for client in self.pings.due(now_s):
            self.pings.set(client, now_s)
            client.ping()
