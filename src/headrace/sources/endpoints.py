"""The part of a source that is the same for all transports: keeps a connection to each endpoint."""

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial

from headrace.runtime.backoff import Backoff
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources import NOTHING_COVERED, Ending, Outlet
from headrace.sources.connection import Connection, Parting
from headrace.sources.health import SourceHealth
from headrace.sources.merge import MergedStream
from headrace.sources.metrics import SourceMetrics
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.subscriptions import ChainSubscription, Resolve, parse_all


def no_names(name: str) -> str:
    """Raise KeyError: no program is known by name."""
    raise KeyError(name)


class EndpointSource:
    """A `Source` that reads all `urls` at once. Each transport derives from it and implements `connect`.

    A connection that ends is replaced after a backoff; without a network the source keeps trying. `rpc` is needed to
    fill gaps, to compare streams with the ledger and to confirm slots. Without it updates still flow, and every gap is
    unrecoverable. `resolve` returns a program's id by its name (KeyError: unknown). `breakers`, one for each endpoint,
    keep an endpoint that fails repeatedly from being tried too often. Raises ConfigError for subscriptions that can't
    be parsed.
    """

    def __init__(
        self,
        name: str,
        urls: Sequence[str],
        settings: NodeSourceSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        rpc: Rpc | None = None,
        resolve: Resolve = no_names,
        breakers: Sequence[Breaker] = (),
    ) -> None:
        self.name, self.urls = name, tuple(urls)
        self._covered: Mapping[str, int] = NOTHING_COVERED
        self._ended = False
        self.stream: MergedStream | None = None
        self._settings, self._clock, self._rpc, self._resolve = settings, clock, rpc, resolve
        self._wanted = self.parse(settings.subscriptions)
        self._breakers = breakers
        self._metrics = SourceMetrics(metrics)
        self._health = SourceHealth(name, health, self.urls, stall_slots=settings.stall_slots)
        self._health.report((), len(self._wanted), now=clock.monotonic())
        self._stopping = asyncio.Event()

    async def connect(self, connection: Connection, stream: MergedStream, url: str) -> Parting:
        """Connect to `url`, subscribe, and pass on arrivals until the connection ends. Return how it ended.

        Failures of the network and the node are returned, not raised.
        """
        raise NotImplementedError

    def parse(self, texts: Sequence[str]) -> tuple[ChainSubscription, ...]:
        """Return the subscriptions that the texts name. Raises ConfigError."""
        return parse_all(texts, self._resolve)

    @property
    def wanted(self) -> tuple[ChainSubscription, ...]:
        """The subscriptions of every connection. A `signature:` subscription is included until it is answered."""
        return self._wanted if self.stream is None else self.stream.wanted

    @property
    def covered(self) -> Mapping[str, int]:
        """Feed → the slot up to which everything would be delivered or declared as a gap if the source ended now."""
        return {**self._covered, **self.stream.covered()} if self.stream and not self._ended else self._covered

    def update_subscriptions(self, texts: Sequence[str]) -> None:
        """Change the subscriptions while running, without reconnecting.

        Raises ConfigError, and then changes nothing.
        """
        self._wanted = self.parse(texts)
        if self.stream is not None:
            self.stream.want(self._wanted)

    def update_settings(self, settings: NodeSourceSettings) -> None:
        """Change the settings that may change while running. Raises ConfigError, and then changes nothing."""
        self.update_subscriptions(settings.subscriptions)

    async def run(self, outlet: Outlet, covered: Mapping[str, int] = NOTHING_COVERED) -> Ending:
        """Deliver until `stop` or cancellation."""
        covered = self._of_wanted(covered)
        self._covered, self._ended = covered, False
        async with Supervisor(self._clock) as tasks:
            self.stream = stream = MergedStream(
                self.name,
                self._wanted,
                covered,
                settings=self._settings,
                clock=self._clock,
                metrics=self._metrics,
                health=self._health,
                rpc=self._rpc,
                outlet=outlet,
                tasks=tasks,
            )
            for number, url in enumerate(self.urls):
                keep = partial(self._keep, stream, number, url)
                tasks.start(self.name, f"endpoint-{number}", keep, restart=self._backoff())
            stream.start()
            try:
                await self._stopping.wait()
            finally:
                self._covered, self._ended = stream.close(), True
                tasks.cancel()
                self._health.close()
        return Ending("stopped")

    def _of_wanted(self, covered: Mapping[str, int]) -> Mapping[str, int]:
        """Return `covered` without the feeds that are no longer wanted."""
        feeds = {subscription.feed for subscription in self._wanted}
        return {feed: slot for feed, slot in covered.items() if feed in feeds}

    def stop(self) -> None:
        """End `run`. Gaps that are being filled are declared unrecoverable."""
        self._stopping.set()

    async def _keep(self, stream: MergedStream, number: int, url: str) -> None:
        """Connect, and connect again after each end, until cancelled."""
        backoff = self._backoff()
        breaker = self._breakers[number] if number < len(self._breakers) else None
        if number in stream.connections:  # left by an earlier run of this task, which failed
            stream.end(stream.connections[number], "closed")
        while True:
            now = self._clock.monotonic()
            if breaker is not None and not breaker.allow(now):
                await self._clock.sleep(breaker.retry_in_s(now))
                continue
            connection = Connection(f"{self.name}-{number}", number, stream.wanted, settings=self._settings, now=now)
            stream.begin(connection)
            parting = await self.connect(connection, stream, url)
            stream.end(connection, parting.reason)
            now = self._clock.monotonic()
            was_well = connection.watch.head > 0 and now - connection.began > self._settings.stall_s
            if was_well:
                backoff.reset()
            if breaker is not None and connection.watch.head:
                breaker.success()
            elif breaker is not None:
                breaker.failure(now)
            self._metrics.lost(connection.name, parting.reason)
            self._health.lost(connection, parting, now, was_well=was_well)
            stream.report()
            pause_s = max(backoff.next_s(), parting.rest_s)
            await self._clock.sleep(max(pause_s, backoff.max_s) if parting.reason == "denied" else pause_s)

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.backoff_initial_s, self._settings.backoff_max_s)
