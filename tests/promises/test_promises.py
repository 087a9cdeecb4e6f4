"""Random connects, publishes, stalls, cuts and restarts: no loss, repeat or reordering that nobody declared."""

import asyncio
import os
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from tests.examples import examples
from tests.promises.account import Wish
from tests.promises.followers import ByHand, ByJs, BySdk
from tests.promises.world import HISTORY_SIZE, LANES, FollowerFactory, World
from tests.sdk.test_conformance import needs_node

STATEFUL = "accounts:pump"
TOPICS = ("trades:pump", STATEFUL)
FOLLOWERS_MAX = 4
EXAMPLES = int(os.environ.get("PROMISES_EXAMPLES", examples(16)))


@st.composite
def wishes(draw: st.DrawFn) -> Wish:
    topic = draw(st.sampled_from(TOPICS))
    lanes = draw(st.none() | st.lists(st.sampled_from(LANES), min_size=1, max_size=2, unique=True))
    conflated = draw(st.booleans())
    on_slow = draw(st.sampled_from(["disconnect", "drop_oldest", *(["conflate"] if conflated else [])]))
    return Wish(topic, None if lanes is None else tuple(lanes), conflated, on_slow, snapshot=topic == STATEFUL)


FOLLOWERS = [ByHand, BySdk, pytest.param(ByJs, marks=needs_node)]
picks = st.integers(0, FOLLOWERS_MAX - 1)


class Promises(RuleBasedStateMachine):
    """Each rule is one thing that happens; every follower checks what it is told the moment it is told."""

    @initialize()
    def begin(self) -> None:
        self.runner = asyncio.Runner()
        self.world = World()
        self.life = self.runner.get_loop().create_task(self.world.live())
        self.do(self.world.up())
        self.do(self.world.publish(STATEFUL, LANES, 10))

    def do(self, work: Coroutine[Any, Any, object]) -> None:
        """Let the loop run until `work` is done, or until a follower finds a promise broken: then fail as it did."""
        self.runner.run(self._race(work))

    async def _race(self, work: Coroutine[Any, Any, object]) -> None:
        task = asyncio.ensure_future(work)
        await asyncio.wait([task, self.life], return_when=asyncio.FIRST_COMPLETED)
        if self.life.done():
            task.cancel()
            self.life.result()
        await task

    @precondition(lambda self: len(self.world.followers) < FOLLOWERS_MAX)
    @rule(make=st.sampled_from([ByHand, BySdk]), wish=wishes())
    def join(self, make: FollowerFactory, wish: Wish) -> None:
        self.do(asyncio.sleep(0))
        self.world.join(make, wish)
        self.do(asyncio.sleep(0.002))

    @rule(topic=st.sampled_from(TOPICS), lanes=st.lists(st.sampled_from(LANES), min_size=1, max_size=10))
    def publish(self, topic: str, lanes: Sequence[str]) -> None:
        self.do(self.world.publish(topic, lanes, 10))

    @rule(topic=st.sampled_from(TOPICS), count=st.integers(1, 80))
    def flood(self, topic: str, count: int) -> None:
        """More than the buffers of one who does not read can take, a little at a time."""
        for n in range(0, count, 5):
            self.do(self.world.publish(topic, [LANES[n % 3]] * 5, 5000))
            self.do(asyncio.sleep(0.002))

    @precondition(lambda self: self.world.followers)
    @rule(pick=picks, stalled=st.booleans())
    def stall(self, pick: int, stalled: bool) -> None:
        self.world.followers[pick % len(self.world.followers)].stall(stalled=stalled)

    @precondition(lambda self: self.world.followers)
    @rule(pick=picks, missed=st.integers(1, HISTORY_SIZE + 20))
    def overwhelm(self, pick: int, missed: int) -> None:
        self.do(self.world.overwhelm(self.world.followers[pick % len(self.world.followers)], missed))

    @precondition(lambda self: self.world.followers)
    @rule(pick=picks)
    def cut(self, pick: int) -> None:
        self.world.followers[pick % len(self.world.followers)].cut()
        self.do(asyncio.sleep(0.002))

    @rule(keep_log=st.booleans())
    def restart(self, keep_log: bool) -> None:
        self.do(self.world.restart(keep_log=keep_log))

    @rule()
    def settle(self) -> None:
        self.do(self.world.settle())

    def teardown(self) -> None:
        try:
            self.do(self.world.settle())
        finally:
            self.runner.run(self.world.end())
            self.runner.run(asyncio.wait([self.life]))
            self.runner.close()


class PromisesByJs(Promises):
    """The same with the JavaScript client alone, of which each costs a process."""

    @precondition(lambda self: len(self.world.followers) < FOLLOWERS_MAX)
    @rule(make=st.just(ByJs), wish=wishes())
    def join(self, make: FollowerFactory, wish: Wish) -> None:
        super().join(make, wish)


@pytest.mark.timeout(300 + 20 * EXAMPLES)
@pytest.mark.parametrize(
    ("machine", "examples"),
    [(Promises, EXAMPLES), pytest.param(PromisesByJs, max(1, EXAMPLES // 5), marks=needs_node)],
)
def test_promises_hold(machine: type[Promises], examples: int) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(max_examples=examples, stateful_step_count=25, suppress_health_check=list(HealthCheck)),
    )


SLOW = [
    pytest.param("drop_oldest", False, 10, 1, id="drops the oldest"),
    pytest.param("drop_oldest", True, 10, 1, id="drops the oldest, conflated"),
    pytest.param("conflate", True, 10, 1, id="conflates"),
    pytest.param("conflate", True, HISTORY_SIZE + 20, 1, id="conflates, and the log is too short"),
    pytest.param("disconnect", False, 10, 0, id="misses nothing"),
    pytest.param("disconnect", False, HISTORY_SIZE + 20, 1, id="is cut off"),
]


@pytest.mark.parametrize("make", FOLLOWERS)
@pytest.mark.parametrize(("on_slow", "conflated", "missed", "lags"), SLOW)
async def test_one_that_is_too_slow(
    make: FollowerFactory, on_slow: str, conflated: bool, missed: int, lags: int
) -> None:
    """Twice, as after the first time it must be where it would be without."""
    world = World(slow_abort_s=3600)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.live())
        await world.up()
        follower = world.join(make, Wish("trades:pump", conflated=conflated, on_slow=on_slow))
        assert world.running is not None
        for round_ in range(1, 3):
            await world.running.listened_to("trades:pump")
            await world.overwhelm(follower, missed)
            await world.settle()
            assert follower.account.lags == round_ * lags
        await world.end()


@pytest.mark.parametrize("make", FOLLOWERS)
@pytest.mark.parametrize("on_slow", ["drop_oldest", "disconnect"])
async def test_a_snapshot_that_fills_the_socket(make: FollowerFactory, on_slow: str) -> None:
    """What comes after it comes live, and not once more when the socket is full again."""
    world = World(slow_abort_s=3600)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(world.live())
        await world.publish(STATEFUL, LANES, 60_000)
        world.join(ByHand, Wish(STATEFUL))
        assert world.running is not None
        await world.running.live(STATEFUL)
        follower = world.join(make, Wish(STATEFUL, on_slow=on_slow, snapshot=True))
        await world.settle()
        await world.running.live(STATEFUL)
        await world.publish(STATEFUL, LANES, 10)
        await world.settle()
        await world.overwhelm(follower, 10)
        await world.settle()
        assert follower.account.lags == (on_slow == "drop_oldest")
        await world.end()
