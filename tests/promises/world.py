"""A server that may end and begin again, followers of its topics, and a log of all that was published."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import Any, Final, cast

from headrace.bus import BusSettings
from headrace.fanout.client import Client
from headrace.model.events import Label, Publication
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from tests.gateway.running_gateway import RunningGateway, run_gateway
from tests.local_bus import LocalBus
from tests.promises.account import Account, Published, Wish
from tests.promises.followers import Follower

LANES = ("a", "b", "c")
PATIENCE_S = 60.0
BURSTS_MAX = 20
HISTORY_SIZE = 60
"""Small, so that who is away long falls off the end of the log."""

QUICK: Final[dict[str, Any]] = {
    "send_buffer_bytes": 4096,
    "write_buffer_bytes": 16_384,
    "slow_abort_s": 1,
    "cmd_per_s": 10_000,
    "ping_s": 1,
}

FollowerFactory = Callable[[Account, Callable[[], int]], Follower]


class World:
    """Everything that the rules of the test act upon. Live it in a task of its own: `live` returns after `end`."""

    def __init__(self, **settings: Any) -> None:
        self._settings = QUICK | settings
        self.published = Published()
        self.followers: list[Follower] = []
        self.running: RunningGateway | None = None
        self._epochs = 0
        self._count = 0
        self._bus = self._new_bus()
        self._up = asyncio.Event()
        self._down = asyncio.Event()
        self._leave = asyncio.Event()
        self._ended = False
        self._keep_log = True
        self._port = 0
        self._tasks: Supervisor | None = None
        self._running: list[asyncio.Task[object]] = []

    async def live(self) -> None:
        """Serve, again and again, until `end`."""
        async with Supervisor(SystemClock()) as self._tasks:
            while not self._ended:
                async with run_gateway(bus=self._bus, port=self._port, **self._settings) as self.running:
                    self._port = self.running.port
                    self._down.clear()
                    self._up.set()
                    await self._leave.wait()
                    self._leave.clear()
                    self._up.clear()
                if not self._keep_log:
                    self._bus = self._new_bus()
                    self.published.forget()
                self._down.set()
            self._tasks.cancel()

    async def end(self) -> None:
        self._ended = True
        for task in self._running:
            task.cancel()
        self._leave.set()

    async def up(self) -> None:
        await self._up.wait()

    async def restart(self, *, keep_log: bool) -> None:
        """Stop in good order and begin again on the same port; without its log it has nothing to recover from."""
        await self.up()
        self._keep_log = keep_log
        self._leave.set()
        await self._down.wait()
        await self.up()

    def join(self, make: FollowerFactory, wish: Wish) -> Follower:
        follower = make(Account(self.published, wish), lambda: self._port)
        assert self._tasks is not None
        self._running.append(self._tasks.start("promises", f"follower{len(self.followers)}", follower.run))
        self.followers.append(follower)
        return follower

    async def publish(self, topic: str, lanes: Sequence[str], size: int) -> None:
        """One message for each of the lanes, in one batch, each of about `size` bytes."""
        await self.up()
        rows: list[dict[str, Any]] = []
        for lane in lanes:
            self._count += 1
            rows.append({"n": self._count, "lane": lane, "pubkey": lane, "pad": "x" * size})
        batch = [
            Publication.on(
                topic,
                "event",
                b'"event_id":"e%d","data":%b,"chain":{}' % (row["n"], json.dumps(row).encode()),
                Label(row["lane"], f"e{row['n']}", None, certain=False),
            )
            for row in rows
        ]
        # Followers may hear of a message before `publish` returns, so it is written down as the bus hands it out.
        top = await self._bus.top(topic)
        for index, row in enumerate(rows, 1):
            self.published.add(topic, top.epoch, top.offset + index, row)
        await self._bus.publish(batch)

    async def overwhelm(self, follower: Follower, missed: int) -> None:
        """Send it more than it takes; then `missed` messages, of all the lanes in turn, which it can only miss."""
        await self.up()
        topic = follower.account.wish.topic
        follower.choke(choked=True)
        assert self.running is not None
        for _ in range(BURSTS_MAX):
            await self.publish(topic, LANES, 5000)
            await self.running.all_sent(topic)
            if self._is_deaf(follower):
                break
        await self.publish(topic, [LANES[n % len(LANES)] for n in range(missed)], 10)
        await self.running.all_sent(topic)
        follower.choke(choked=False)

    def _is_deaf(self, follower: Follower) -> bool:
        """Return whether the server can't write to it: others may be slow for a moment, too."""
        assert self.running is not None
        ports = follower.ports()
        there = [client for client in self.running.gateway.hub.clients if _port_of(client) in ports]
        return all(client.paused for client in there)

    async def settle(self) -> None:
        """Let everyone read; return when each has got, or knows that it lost, everything."""
        await self.up()
        for follower in self.followers:
            follower.stall(stalled=False)
            follower.choke(choked=False)
        for follower in self.followers:
            await self._until_current(follower)

    async def _until_current(self, follower: Follower) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                while not follower.account.is_current():
                    follower.heard.clear()
                    await follower.heard.wait()
        except TimeoutError as error:
            account, newest = follower.account, self.published.newest(follower.account.wish)
            at = f"{account.epoch}/{account.offset}"
            raise AssertionError(f"{account.wish} is at {at}, the newest that it wants is {newest}") from error

    def _new_bus(self) -> LocalBus:
        self._epochs += 1
        return LocalBus(BusSettings(history_size=HISTORY_SIZE), SystemClock(), f"life{self._epochs}")


def _port_of(client: Client) -> int:
    peer = cast("asyncio.Transport", client.wire).get_extra_info("peername")
    return int(peer[1]) if peer else 0
