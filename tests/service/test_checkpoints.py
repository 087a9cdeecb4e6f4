"""A service that is torn down and started again on the same files continues where it was, over both transports."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import grpc
import pytest

from headrace.config import load
from headrace.history import HISTORIES
from headrace.history.rows import GapQuery
from headrace.model.facts import Gap, GapDeclared, News, TransactionSeen
from headrace.runtime.clock import SystemClock
from headrace.runtime.supervise import Supervisor
from headrace.service.server import Service
from headrace.service.settings import SECTIONS
from headrace.testing.ledger import made_up_key, made_up_signature
from headrace.testing.node import ScriptedNode
from headrace.testing.yellowstone import ScriptedYellowstone
from tests.contracts.contexts import opened

PROGRAM: Final = made_up_key("program")
FEED: Final = f"logs:{PROGRAM}"
PATIENCE_S: Final = 30.0
NODES: Final[Mapping[str, type[ScriptedNode] | type[ScriptedYellowstone]]] = {
    "rpc_pubsub": ScriptedNode,
    "yellowstone": ScriptedYellowstone,
}
every_transport = pytest.mark.parametrize("kind", NODES)
Node = ScriptedNode | ScriptedYellowstone


def environment(node: Node, folder: Path) -> dict[str, str]:
    url = {"YELLOWSTONE_URLS": node.url} if isinstance(node, ScriptedYellowstone) else {"SOLANA_RPC_WS": node.ws_url}
    return url | {
        "SOLANA_RPC_URL": node.http_url,
        "SUBSCRIPTIONS": FEED,
        "GATEWAY_ENABLED": "false",
        "ORDERS_ENABLED": "false",
        "INBOX_FILE": str(folder / "inbox.db"),
        "HISTORY_FILE": str(folder / "history.db"),
        "CHECKPOINTS_INTERVAL_S": "0.02",
        "SOLANA_GAP_MARGIN_SLOTS": "2",
        "SOLANA_REFILL_SETTLE_SLOTS": "0",
        "SOLANA_REFILL_PAGE_S": "0",
        "SOLANA_CONFIRM_S": "0.05",
        "SOLANA_CHECK_S": "0.05",
        "SOLANA_QUIET_FEED_S": "0.1",
    }


class Run:
    """One run of a service, and what its consumers of facts heard."""

    def __init__(self, node: Node, service: Service, folder: Path) -> None:
        self.node, self.service, self._folder = node, service, folder
        self.signatures: set[str] = set()
        self.gaps: list[Gap] = []
        service.pipeline.consumers.attach(self.hear)

    def hear(self, news: Sequence[News]) -> None:
        self.signatures |= {each.update.signature for each in news if isinstance(each, TransactionSeen)}
        self.gaps += [each.gap for each in news if isinstance(each, GapDeclared) and each.feed == FEED]

    def checkpoint(self, kind: str) -> int:
        """The stored slot of the feed, 0 without one."""
        with contextlib.closing(sqlite3.connect(self._folder / "inbox.db")) as db:
            try:
                source = "rpc" if kind == "rpc_pubsub" else kind
                rows = db.execute("select slot from checkpoints where source = ? and feed = ?", (source, FEED))
                return next(rows, (0,))[0]
            except sqlite3.OperationalError:
                return 0

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when `condition` holds, while the chain goes on."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.node.advance_slot()
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def serving(node: Node, folder: Path, *, in_order: bool = False, **env: str) -> AsyncIterator[Run]:
    """A service on the files in `folder`; at the end it is torn down, or stopped in order."""
    config = await asyncio.to_thread(
        partial(load, SECTIONS, env=environment(node, folder) | env, dotenv=None, toml=None)
    )
    service = await asyncio.to_thread(Service, config)
    stop, run = asyncio.Event(), Run(node, service, folder)
    async with Supervisor(SystemClock()) as tasks:
        running = tasks.start("test", "service", partial(service.run, stop))
        await service.started.wait()
        yield run
        if in_order:
            stop.set()
        else:
            running.cancel()
        await asyncio.wait([running])


async def first_run(kind: str, node: Node, folder: Path) -> int:
    """Run a service until its checkpoint has passed a transaction, tear it down, and return the checkpoint."""
    async with serving(node, folder) as run:
        await run.until(lambda: run.checkpoint(kind) > node.ledger.head - 10 > 1000)
        landed = node.emit_transaction([PROGRAM], signature=made_up_signature(1))
        await run.until(lambda: run.checkpoint(kind) >= landed.slot)
        assert landed.signature in run.signatures
    return run.checkpoint(kind)


def land_meanwhile(node: Node) -> set[str]:
    """Land transactions while no service runs; return their signatures."""
    landed = set()
    for number in range(2, 7):
        for _ in range(5):
            node.advance_slot()
        landed.add(node.emit_transaction([PROGRAM], signature=made_up_signature(number)).signature)
        node.advance_slot()
    return landed


async def history_gaps(folder: Path) -> list[str]:
    async with opened(HISTORIES, "sqlite", SystemClock(), file=str(folder / "history.db")) as (history, _):
        return [each.reason for each in (await history.gaps(GapQuery(limit=100))).items]


@every_transport
async def test_restarted_service_fills_the_time_for_which_it_was_off(kind: str, tmp_path: Path) -> None:
    async with NODES[kind]() as node:
        await first_run(kind, node, tmp_path)
        landed = land_meanwhile(node)
        async with serving(node, tmp_path, in_order=True) as run:
            await run.until(lambda: landed <= run.signatures)
            await run.until(lambda: run.checkpoint(kind) > node.ledger.by_signature[made_up_signature(6)].slot)
            assert {gap.state for gap in run.gaps} <= {"open", "backfilled"}
        if isinstance(node, ScriptedYellowstone):
            assert any(request.HasField("from_slot") for request in node.requests)
        assert "history_not_running" not in await history_gaps(tmp_path)


async def test_replay_that_the_node_refuses_is_filled_from_the_ledger(tmp_path: Path) -> None:
    async with ScriptedYellowstone() as node:
        await first_run("yellowstone", node, tmp_path)
        landed = land_meanwhile(node)
        node.faults.refuse_from_slot = grpc.StatusCode.OUT_OF_RANGE, "from_slot is too old"
        async with serving(node, tmp_path) as run:
            await run.until(lambda: [gap.state for gap in run.gaps][-1:] == ["backfilled"])
            assert landed <= run.signatures


@every_transport
async def test_what_no_node_has_any_more_is_declared(kind: str, tmp_path: Path) -> None:
    async with NODES[kind]() as node:
        reached = await first_run(kind, node, tmp_path)
        land_meanwhile(node)
        if isinstance(node, ScriptedYellowstone):
            node.faults.refuse_from_slot = grpc.StatusCode.INTERNAL, "no replay"
        node.ledger.first_available = node.ledger.head + 1
        async with serving(node, tmp_path) as run:
            await run.until(lambda: [gap.state for gap in run.gaps][-1:] == ["unrecoverable"])
            assert run.gaps[0].from_slot == reached + 1
            assert run.gaps[0].to_slot > node.ledger.by_signature[made_up_signature(6)].slot


async def test_checkpoint_stays_before_an_open_gap_until_it_is_closed(tmp_path: Path) -> None:
    async with ScriptedNode() as node:
        await first_run("rpc_pubsub", node, tmp_path)
        landed = land_meanwhile(node)
        node.http_faults.status = 503
        async with serving(node, tmp_path) as run:
            await run.until(lambda: bool(run.gaps))
            opened_at, head = run.gaps[0].from_slot, node.ledger.head
            await run.until(lambda: node.ledger.head > head + 20)
            assert run.checkpoint("rpc_pubsub") < opened_at
        async with serving(node, tmp_path) as run:
            node.http_faults.status = 200
            await run.until(lambda: landed <= run.signatures)
            await run.until(lambda: run.checkpoint("rpc_pubsub") > head)


async def test_without_checkpoints_the_time_off_is_left_out(tmp_path: Path) -> None:
    async with ScriptedNode() as node:
        await first_run("rpc_pubsub", node, tmp_path)
        land_meanwhile(node)
        async with serving(node, tmp_path, in_order=True, CHECKPOINTS_ENABLED="false") as run:

            def came() -> bool:
                node.emit_transaction([PROGRAM])
                return len(run.signatures) > 3

            await run.until(came)
            assert run.signatures.isdisjoint(made_up_signature(number) for number in range(2, 7))
        assert "history_not_running" in await history_gaps(tmp_path)


async def test_checkpoints_that_are_read_late_declare_the_slots_in_between(tmp_path: Path) -> None:
    async with ScriptedNode() as node:
        reached = await first_run("rpc_pubsub", node, tmp_path)
        land_meanwhile(node)
        with contextlib.closing(sqlite3.connect(tmp_path / "inbox.db", isolation_level=None)) as db:
            db.execute("alter table checkpoints rename to elsewhere")
            db.execute("create view checkpoints as select source, feed, slot from elsewhere where abs(-1 << 63)")
            async with serving(node, tmp_path) as run:
                await run.until(lambda: run.service.stream.covered.get("rpc", {}).get(FEED, 0) > 0)
                db.execute("drop view checkpoints")
                db.execute("alter table elsewhere rename to checkpoints")
                await run.until(lambda: [gap.state for gap in run.gaps] == ["open", "unrecoverable"])
                assert run.gaps[0].from_slot == reached + 1
                await run.until(lambda: run.checkpoint("rpc_pubsub") > run.gaps[0].to_slot)
