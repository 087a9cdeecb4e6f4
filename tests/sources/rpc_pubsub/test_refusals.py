"""A node that refuses the handshake or a subscription, answers twice, never, or nonsense; with time held still."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import msgspec
import pytest

from headrace.model.updates import AnyUpdate
from headrace.runtime.backoff import Backoff
from headrace.runtime.breaker import Breaker
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.sources.rpc_pubsub import RpcPubSub
from headrace.testing.node import ScriptedNode
from headrace.testing.proxy import TcpProxy
from tests.sources.rpc_pubsub.rig import FEED, OTHER, SETTINGS, Rig, rig

ACCOUNT = f"account:{OTHER}"
LINE = f"source:rpc-0:{ACCOUNT}"
ROUNDS = 2
"""Tasks of a source without HTTP that sleep between their rounds: of what could not be read, and of proofs."""


class Held:
    """A node that refuses handshakes, before a source whose clock stands."""

    def __init__(self, node: ScriptedNode, proxy: TcpProxy, clock: ManualClock, health: Health) -> None:
        self.node, self.proxy, self.clock, self.health = node, proxy, clock, health

    async def asleep(self) -> None:
        """Return when the source pauses before its next try."""
        while self.clock.sleepers != ROUNDS + 1:
            await self.clock.advance(0)

    async def connections_after(self, seconds: float) -> int:
        await self.clock.advance(seconds)
        await self.asleep()
        return self.proxy.connections

    @property
    def detail(self) -> str:
        return self.health.components()["source:rpc"].detail


@asynccontextmanager
async def held(breaker: Breaker | None = None, **changes: Any) -> AsyncIterator[Held]:
    clock, health = ManualClock(), Health()
    async with (
        ScriptedNode() as node,
        TcpProxy("127.0.0.1", node.ws_port) as proxy,
        Supervisor(clock) as tasks,
    ):
        node.faults.refuse = True
        pauses = {"backoff_initial_s": 1.0, "backoff_max_s": 1.0, "confirm_s": 1000.0, **changes}
        settings = msgspec.structs.replace(SETTINGS, ws_urls=(f"ws://127.0.0.1:{proxy.port}",), **pauses)
        breakers = [breaker] if breaker else []
        source = RpcPubSub(settings, clock=clock, metrics=Metrics(), health=health, breakers=breakers)
        outlet: Channel[AnyUpdate] = Channel(1000)
        holding = Held(node, proxy, clock, health)
        running = tasks.start("test", "source", partial(source.run, outlet))
        yield holding
        source.stop()
        await running


@pytest.mark.parametrize(("status", "retry_after", "rest_s"), [(429, "120", 120), (503, "7", 7), (503, "soon", 1)])
async def test_a_node_that_is_busy_is_left_alone_for_as_long_as_it_asks(
    status: int, retry_after: str, rest_s: float
) -> None:
    async with held() as holding:
        holding.node.faults.refuse_status, holding.node.faults.retry_after = status, retry_after
        await holding.asleep()
        assert holding.detail == f"0 of 1 endpoints; connecting after: refused HTTP {status}"
        assert await holding.connections_after(rest_s / 2 - 0.01) == 1
        assert await holding.connections_after(rest_s / 2 + 0.01) == 2


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_what_will_be_refused_again_is_tried_only_at_the_longest_pause(status: int) -> None:
    async with held(backoff_max_s=30.0) as holding:
        holding.node.faults.refuse_status = status
        await holding.asleep()
        assert holding.detail.endswith(f"denied HTTP {status}")
        assert await holding.connections_after(29.9) == 1
        assert await holding.connections_after(0.1) == 2


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    async with ScriptedNode() as elsewhere, held() as holding:
        holding.node.faults.refuse_status, holding.node.faults.location = status, elsewhere.ws_url
        await holding.asleep()
        assert holding.detail.endswith(f"denied HTTP {status}, and redirects are not followed")
        assert elsewhere.requests == []


async def test_the_breaker_opens_probes_once_and_closes() -> None:
    breaker = Breaker(failures_max=3, window_s=30.0, cooldown=Backoff(20.0, 20.0))
    async with held(breaker) as holding:
        await holding.asleep()
        for tried in (2, 3):
            assert await holding.connections_after(1.0) == tried
        assert state(breaker) == "open"
        await holding.clock.advance(1.0)  # the pause after the third try
        await holding.asleep()
        rest_s = breaker.retry_in_s(holding.clock.monotonic())
        assert rest_s > 8
        assert await holding.connections_after(rest_s - 0.01) == 3, "while it is open nobody asks"
        assert await holding.connections_after(0.02) == 4, "one probe"
        assert state(breaker) == "open"
        holding.node.faults.refuse = False
        await holding.clock.advance(1.0)
        await holding.clock.advance(21.0)
        await holding.node.until(lambda: holding.node.subscribed("slot") == 1)
        assert state(breaker) == "half_open"
        while not holding.health.ready:
            holding.node.advance_slot()
            await holding.clock.advance(0.1)
        holding.node.faults.refuse = True
        holding.proxy.cut()
        while state(breaker) == "half_open":
            await holding.clock.advance(0.1)
        assert state(breaker) == "closed", "a connection that brought slots was a success"


def state(breaker: Breaker) -> str:
    return breaker.state


async def refused_line(rigged: Rig, detail: str) -> None:
    await rigged.until(
        lambda: LINE in rigged.health.components() and detail in rigged.health.components()[LINE].detail, flowing=True
    )


@pytest.mark.parametrize("error", [(-32602, "Invalid params"), (-32601, "Method not found"), (-32005, "rate limited")])
async def test_a_refused_subscription_has_a_line_of_its_own_until_it_is_taken(error: tuple[int, str]) -> None:
    async with rig(subscriptions=(FEED, ACCOUNT), start=False) as rigged:
        rigged.node.faults.errors["accountSubscribe"] = error
        await refused_line(rigged, f"{error[0]} {error[1]}")
        await rigged.until(lambda: rigged.health.components()["source:rpc"].ready, flowing=True)
        assert rigged.health.ready, "the line does not decide readiness"
        await rigged.still_flows()
        rigged.node.faults.errors.clear()
        await rigged.until(lambda: LINE not in rigged.health.components(), flowing=True)
        assert rigged.proxy.connections == 1


async def test_a_source_of_which_everything_is_refused_is_not_ready() -> None:
    async with rig(start=False) as rigged:
        rigged.node.faults.errors["logsSubscribe"] = (-32601, "Method not found")
        await rigged.until(lambda: "1 of 1" in rigged.health.components()["source:rpc"].detail, flowing=True)
        assert not rigged.health.ready
        rigged.node.faults.errors.clear()
        await rigged.until(lambda: rigged.health.ready, flowing=True)


async def test_one_subscription_that_is_never_answered_takes_no_other_down() -> None:
    async with rig(ack_timeout_s=0.5) as rigged:
        rigged.node.faults.unanswered.add("accountSubscribe")
        rigged.source.update_subscriptions([FEED, ACCOUNT])
        await refused_line(rigged, "no answer in 0.5 s")
        await rigged.still_flows()
        rigged.node.faults.unanswered.clear()
        await rigged.account_flows_too()


async def test_zstd_that_is_refused_for_several_is_no_refusal_of_any() -> None:
    async with rig(subscriptions=(FEED, ACCOUNT, "program:pump"), start=False, refused_retry_s=1000.0) as rigged:
        rigged.node.faults.refuse_zstd = True
        await rigged.covered()
        assert rigged.connections[0].refused == {}


async def test_a_node_that_gives_one_id_to_several_subscriptions_is_given_up() -> None:
    async with rig(start=False) as rigged:
        rigged.node.faults.same_id = True
        await rigged.until(lambda: rigged.count("source_reconnects_total", source="rpc-0", reason="id_taken") >= 2)
        rigged.node.faults.same_id = False
        await rigged.covered()
        await rigged.still_flows()


async def test_answers_that_come_twice_or_to_nobody_change_nothing() -> None:
    async with rig() as rigged:
        for answer in (
            '{"id":1,"result":9}',
            '{"id":2,"result":9}',
            '{"id":2,"error":{"code":-32602,"message":"no"}}',
            '{"id":77,"result":9}',
            '{"id":77,"error":{"code":1,"message":"no"}}',
            '{"id":2,"result":null}',
            '{"id":2,"result":"9"}',
        ):
            rigged.node.send_raw(answer)
        await rigged.still_flows()
        assert rigged.health.ready
        assert rigged.proxy.connections == 1
        assert rigged.gaps == []


async def test_notifications_under_the_ids_of_an_earlier_connection_are_not_taken_for_news() -> None:
    async with rig() as rigged:
        old = rigged.node.subscription_id("logs")
        rigged.proxy.cut()
        await rigged.until(lambda: rigged.proxy.connections == 2)
        await rigged.settled()
        before = len(rigged.signatures())
        landed = rigged.node.ledger.land([OTHER])
        value: dict[str, Any] = {"signature": landed.signature, "err": None, "logs": []}
        params = {"result": {"context": {"slot": landed.slot}, "value": value}, "subscription": old}
        rigged.node.send_raw(msgspec.json.encode({"method": "logsNotification", "params": params}).decode())
        await rigged.until(lambda: rigged.count("source_unknown_subscriptions_total", source="rpc-0") == 1)
        assert len(rigged.signatures()) == before
