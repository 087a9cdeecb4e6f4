"""Every source of the register keeps the port's contract, before an upstream of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from functools import partial
from typing import Final

import pytest

from headrace.adapters import Context, load_class
from headrace.decoders.registry import Programs
from headrace.model.errors import ConfigError
from headrace.model.updates import AnyUpdate, GapUpdate, LogsUpdate, TransactionUpdate
from headrace.runtime.channel import Channel
from headrace.runtime.clock import SystemClock
from headrace.runtime.health import ComponentHealth, Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources import NOTHING_COVERED, SOURCES, Ending, Source
from headrace.sources.endpoints import no_names
from headrace.testing.ledger import made_up_signature
from tests.contracts.upstreams import FEED, OTHER, OTHER_FEED, Land, Lose, Spoil, Step, Upstream, upstream_of

PATIENCE_S: Final = 30.0
PROGRAMS: Final = Programs.load()
KINDS: Final = sorted(SOURCES)
LIVE_KINDS: Final = [kind for kind in KINDS if upstream_of(kind).LIVE]

every_kind = pytest.mark.parametrize("kind", KINDS)
every_live_kind = pytest.mark.parametrize("kind", LIVE_KINDS)


class Running:
    """A source that runs, and all updates that it delivered."""

    def __init__(self, source: Source, upstream: Upstream, context: Context) -> None:
        self.source, self.upstream, self._context = source, upstream, context
        self.updates: list[AnyUpdate] = []
        self.ending: Ending | None = None
        self.task: asyncio.Task[object]

    def signatures(self, feed: str = FEED) -> list[str]:
        known = (LogsUpdate, TransactionUpdate)
        return [each.signature for each in self.updates if isinstance(each, known) and each.feed == feed]

    def gap_states(self, feed: str = FEED) -> list[tuple[str, str]]:
        return [(gap.gap_id, gap.state) for gap in self.updates if isinstance(gap, GapUpdate) and gap.feed == feed]

    def is_gap(self, update: AnyUpdate) -> bool:
        return isinstance(update, GapUpdate) and update.feed == FEED

    def component(self) -> ComponentHealth | None:
        return self._context.health.components().get(f"source:{self.source.name}")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds, while the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.upstream.go_on()
                await asyncio.sleep(0.005)

    async def collect(self, outlet: Channel[AnyUpdate]) -> None:
        while True:
            self.updates += await outlet.get_batch()

    async def drive(self, outlet: Channel[AnyUpdate], covered: Mapping[str, int]) -> None:
        self.ending = await self.source.run(outlet, covered)

    async def end(self) -> None:
        """Cancel the source; return when it has ended."""
        self.task.cancel()
        await asyncio.wait([self.task])


@contextlib.asynccontextmanager
async def context_for(upstream: Upstream) -> AsyncIterator[Context]:
    clock = SystemClock()
    async with Supervisor(clock) as tasks:
        rpc = Rpc([upstream.http_url], clock=clock)
        yield Context(
            clock=clock,
            metrics=Metrics(),
            health=Health(clock),
            tasks=tasks,
            rpc=rpc,
            programs=lambda: PROGRAMS,
            resolve=no_names,
            generation="test",
        )
        tasks.cancel()
        await rpc.aclose()


@contextlib.asynccontextmanager
async def running(
    kind: str,
    *steps: Step,
    covered: Mapping[str, int] = NOTHING_COVERED,
    upstream: Upstream | None = None,
) -> AsyncIterator[Running]:
    """A source of `kind` before an upstream in which the steps happen."""
    async with contextlib.AsyncExitStack() as stack:
        if upstream is None:
            upstream = await stack.enter_async_context(upstream_of(kind)())
        await upstream.prepare(steps)
        context = await stack.enter_async_context(context_for(upstream))
        source: Source = await load_class(SOURCES[kind]).open(upstream.settings, context)
        made = Running(source, upstream, context)
        outlet: Channel[AnyUpdate] = Channel(1000)
        context.tasks.start("test", "collect", partial(made.collect, outlet))
        made.task = context.tasks.start("test", "source", partial(made.drive, outlet, covered))
        async with asyncio.timeout(PATIENCE_S):
            await upstream.covered(made.component)
        await upstream.perform(steps)
        yield made
        await made.end()


def signatures(*numbers: int) -> list[str]:
    return [made_up_signature(number) for number in numbers]


@every_kind
async def test_updates_of_a_feed_come_in_the_order_of_the_upstream(kind: str) -> None:
    numbers = range(1, 41)
    async with running(kind, *(Land(number) for number in numbers)) as made:
        await made.until(lambda: len(made.signatures()) >= 40)
        assert made.signatures() == signatures(*numbers)


@every_kind
async def test_each_arrival_is_delivered_once_and_an_upstream_repeat_again(kind: str) -> None:
    async with running(kind, Land(1), Land(2, times=3), Land(3)) as made:
        await made.until(lambda: made_up_signature(3) in made.signatures())
        assert made.signatures() == signatures(1, 2, 2, 2, 3)


@every_kind
async def test_bad_input_is_skipped_and_does_not_end_the_source(kind: str) -> None:
    async with running(kind, Land(1), Spoil(), Land(2)) as made:
        await made.until(lambda: made_up_signature(2) in made.signatures())
        assert made.signatures() == signatures(1, 2)
        assert made.ending is None or made.ending.how == "exhausted"


@every_kind
async def test_cancellation_ends_a_source_at_once_and_leaves_no_task(kind: str) -> None:
    before = asyncio.all_tasks()
    async with running(kind, Land(1)) as made:
        await made.until(lambda: bool(made.signatures()))
        async with asyncio.timeout(PATIENCE_S):
            await made.end()
        assert made.task.cancelled() or made.ending is not None
    assert asyncio.all_tasks() <= before


@every_kind
async def test_settings_that_can_not_be_used_are_refused(kind: str) -> None:
    async with upstream_of(kind)() as upstream, context_for(upstream) as context:
        with pytest.raises(ConfigError):
            await load_class(SOURCES[kind]).open(upstream.unusable, context)


@every_kind
async def test_new_subscriptions_do_not_interrupt_the_feeds_that_stay(kind: str) -> None:
    async with running(kind, Land(1)) as made:
        made.source.update_subscriptions([FEED, OTHER_FEED])
        await made.until(lambda: bool(made.signatures()))
        assert made.signatures() == signatures(1)
        assert made.gap_states() == []


@every_live_kind
async def test_a_new_subscription_is_delivered_and_a_dropped_one_is_not(kind: str) -> None:
    async with running(kind, Land(1)) as made:
        await made.until(lambda: bool(made.signatures()))
        made.source.update_subscriptions([OTHER_FEED])
        number = 100

        async def landed() -> None:
            nonlocal number
            number += 1
            await made.upstream.perform([Land(number, program=OTHER)])

        async with asyncio.timeout(PATIENCE_S):
            while not made.signatures(OTHER_FEED):
                await landed()
                await asyncio.sleep(0.005)
        await made.upstream.perform([Land(2), Land(3, program=OTHER)])
        await made.until(lambda: made_up_signature(3) in made.signatures(OTHER_FEED))
        assert made.signatures() == signatures(1)


@every_live_kind
async def test_a_subscription_that_can_not_be_parsed_is_refused_and_changes_nothing(kind: str) -> None:
    async with running(kind) as made:
        with pytest.raises(ConfigError):
            made.source.update_subscriptions(["nothing:at all"])
        await made.upstream.perform([Land(1)])
        await made.until(lambda: bool(made.signatures()))
        assert made.gap_states() == []


@every_live_kind
async def test_a_loss_is_a_gap_that_opens_and_ends_after_its_refill(kind: str) -> None:
    async with running(kind, Land(1), Lose(2)) as made:
        await made.until(lambda: len(made.gap_states()) >= 2)
        assert [state for _, state in made.gap_states()] == ["open", "backfilled"]
        opened, ended = (number for number, each in enumerate(made.updates) if made.is_gap(each))
        refilled = [each.signature for each in made.updates[opened:ended] if isinstance(each, TransactionUpdate)]
        assert made_up_signature(2) in refilled
        await made.upstream.perform([Land(3)])
        await made.until(lambda: made_up_signature(3) in made.signatures())


@every_live_kind
async def test_what_can_not_be_read_is_a_gap_of_its_feed(kind: str) -> None:
    async with running(kind, Land(1), Spoil()) as made:
        await made.until(lambda: len(made.gap_states()) >= 2)
        assert made.gap_states()[0][1] == "open"
        assert made.gap_states()[-1][1] in ("backfilled", "unrecoverable")


@every_live_kind
async def test_a_later_source_declares_what_was_missed_since_the_earlier_one(kind: str) -> None:
    async with upstream_of(kind)() as upstream:
        async with running(kind, Land(1), upstream=upstream) as first:
            await first.until(lambda: bool(first.signatures()))
        covered = first.source.covered
        assert covered[FEED] > 0
        upstream.go_on()
        await upstream.perform([Land(2)])
        async with running(kind, covered=covered, upstream=upstream) as later:
            await later.until(lambda: made_up_signature(2) in later.signatures() and len(later.gap_states()) >= 2)
            assert [state for _, state in later.gap_states()][:2] == ["open", "backfilled"]


async def test_a_recording_is_exhausted_at_its_end() -> None:
    async with running("recording", Land(1)) as made:
        await made.until(lambda: made.ending is not None)
        assert made.ending == Ending("exhausted")
        assert made.source.covered == {}
