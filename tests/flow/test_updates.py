"""The whole update flow: a node's notifications become frames of clients, and what the node loses is declared."""

import asyncio
import random
from pathlib import Path

import msgspec
import pytest
from websockets.asyncio.client import connect

from headrace.config import Features
from headrace.testing.node import ScriptedNode
from tests.flow.life import Life, life, pump_trade_logs
from tests.mainnet import PUMP

TOPIC = "trades:pump"
LOGS = pump_trade_logs()


async def trade(alive: Life, number: int) -> str:
    return alive.node.emit_transaction([PUMP], LOGS[number % len(LOGS)]).signature


def signatures(alive: Life) -> set[str]:
    return {frame["chain"]["signature"] for frame in alive.of_type("event")}


def states(alive: Life) -> list[str]:
    """What was said of gaps."""
    return [frame["data"]["state"] for frame in alive.of_type("gap")]


def contiguous(alive: Life) -> bool:
    """Offsets grow by one within an epoch: nothing lost, repeated or reordered between service and client."""
    offsets = [int(frame["offset"]) for frame in alive.received if "offset" in frame]
    return offsets == list(range(1, len(offsets) + 1))


async def test_real_trades_reach_a_client() -> None:
    async with life(TOPIC) as alive:
        await alive.covered()
        sent = {await trade(alive, number) for number in range(20)}
        await alive.until(lambda: signatures(alive) == sent)
        first = alive.of_type("event")[0]["data"]
        assert first["type"] == "Trade"
        assert first["program"] == "pump"
        assert first["side"] in ("buy", "sell")
        assert int(first["base_amount"]) > 0
        assert contiguous(alive)


async def test_a_trade_is_promoted_when_its_slot_is_confirmed() -> None:
    async with life(TOPIC) as alive:
        await alive.covered()
        signature = await trade(alive, 0)
        slot = str(alive.node.ledger.head)
        await alive.until(lambda: bool(alive.of_type("promote")))
        promote = alive.of_type("promote")[0]["data"]
        assert promote == {"slot": slot, "commitment": "confirmed"}
        assert signatures(alive) == {signature}


async def test_a_trade_on_an_abandoned_fork_is_taken_back() -> None:
    async with life(TOPIC) as alive:
        await alive.covered()
        base = alive.node.ledger.head
        alive.node.advance_slot()
        await trade(alive, 0)
        await alive.until(lambda: len(alive.of_type("event")) == 1, flowing=False)
        event_id = alive.of_type("event")[0]["event_id"]
        alive.node.advance_slot(parent=base)  # the chain goes on without that slot
        await alive.until(lambda: bool(alive.of_type("retract")))
        assert alive.of_type("retract")[0]["data"]["event_ids"] == [event_id]
        assert not [promote for promote in alive.of_type("promote") if promote["data"]["slot"] == str(base + 1)]


@pytest.mark.parametrize("seed", range(3))
async def test_what_a_cut_upstream_loses_comes_later_or_is_declared(seed: int) -> None:
    rng = random.Random(seed)
    async with life(TOPIC) as alive:
        await alive.covered()
        sent: dict[str, int] = {}
        for number in range(60):
            sent[await trade(alive, number)] = alive.node.ledger.head
            if rng.random() < 0.3:
                alive.node.advance_slot()
            if rng.random() < 0.1:
                alive.proxy.cut()
            if rng.random() < 0.3:
                await asyncio.sleep(0.01)

        def settled() -> bool:
            declared = [frame["data"] for frame in alive.of_type("gap") if frame["data"]["state"] == "unrecoverable"]
            missing = sent.keys() - signatures(alive)
            return all(
                any(int(gap["from_slot"]) <= sent[name] <= int(gap["to_slot"]) for gap in declared) for name in missing
            )

        await alive.until(settled)
        assert len(signatures(alive)) == len(alive.of_type("event"))  # none twice
        assert contiguous(alive)


async def test_a_gap_of_a_node_without_history_is_declared_lost() -> None:
    async with life(TOPIC, SOLANA_REFILL_S="1") as alive:
        await alive.covered()
        await trade(alive, 0)
        await alive.until(lambda: len(alive.of_type("event")) == 1)
        alive.node.http_faults.status = 500
        alive.node.faults.refuse = True
        alive.proxy.cut()
        lost = await trade(alive, 1)
        alive.node.advance_slot()
        alive.node.faults.refuse = False
        await alive.until(lambda: "unrecoverable" in states(alive))
        assert states(alive)[0] == "open"
        assert lost not in signatures(alive)
        after = await trade(alive, 2)
        await alive.until(lambda: after in signatures(alive))


async def test_a_silent_stall_is_found_out_and_refilled() -> None:
    async with life(TOPIC, SOLANA_STALL_S="0.3") as alive:
        await alive.covered()
        alive.node.faults.silent = True
        missed = {await trade(alive, number) for number in range(5)}
        await alive.until(lambda: alive.proxy.connections > 1)
        alive.node.faults.silent = False
        await alive.until(lambda: signatures(alive) >= missed)
        assert len(alive.of_type("event")) == len(missed)


async def test_garbage_from_the_node_stops_nothing() -> None:
    async with life(TOPIC) as alive:
        await alive.covered()
        for garbage in ("{", "[]", b"\xff\xfe", '{"method":"logsNotification","params":7}', "[" * 5000):
            alive.node.send_raw(garbage)
        sent = {await trade(alive, number) for number in range(3)}
        await alive.until(lambda: signatures(alive) == sent)


async def test_a_client_that_comes_back_gets_what_it_missed() -> None:
    async with life(TOPIC) as alive:
        await alive.covered()
        async with connect(f"{alive.url}?subscriptions={TOPIC}") as socket:
            await trade(alive, 0)
            frames = [msgspec.json.decode(await socket.recv()) for _ in range(3)]
        position = {"epoch": frames[-1]["epoch"], "offset": frames[-1]["offset"]}
        missed = [await trade(alive, number) for number in range(1, 6)]
        await alive.until(lambda: signatures(alive) >= set(missed), flowing=False)
        async with connect(alive.url) as socket:
            await socket.recv()
            request = {"type": "subscribe", "id": 7, "data": {"topic": TOPIC, "recover": position}}
            await socket.send(msgspec.json.encode(request).decode())
            ack = msgspec.json.decode(await socket.recv())
            replayed = [msgspec.json.decode(await socket.recv()) for _ in missed]
        assert (ack["id"], ack["data"]["recovered"], ack["data"]["replayed"]) == (7, True, 5)
        assert [frame["chain"]["signature"] for frame in replayed] == missed


async def test_a_community_coin_program_without_idl_comes_raw() -> None:
    program = "6YuHH4kveCrEeEtVKM2nh18zU4XWFpEWqV8f5GbhdnzX"
    logs = [f"Program {program} invoke [1]", "Program log: Instruction: Launch", f"Program {program} success"]
    async with life(f"tx:{program}", SUBSCRIPTIONS="logs:commcoin") as alive:
        await alive.covered()
        signature = alive.node.emit_transaction([program], logs).signature
        await alive.until(lambda: bool(alive.of_type("event")))
        data = alive.of_type("event")[0]["data"]
        assert data["signature"] == signature
        assert data["logs"] == logs


async def test_without_a_node_the_service_starts_and_says_what_is_missing() -> None:
    async with ScriptedNode() as gone:
        dead = gone.ws_url
    async with life(TOPIC, SOLANA_RPC_WS=dead) as alive:
        await alive.until(lambda: "connecting" in alive.service.health.components()["source:rpc"].detail, flowing=False)
        assert not alive.service.health.ready


async def test_the_stream_can_be_switched_off() -> None:
    async with life(TOPIC, TRANSACTION_LISTENER_ENABLED="false") as alive:
        await alive.until(lambda: "source" in alive.service.health.components(), flowing=False)
        assert alive.service.health.ready
        assert alive.service.config.section(Features).stream is False
        assert alive.node.requests == []


async def test_what_happened_while_the_stream_was_off_is_a_gap_and_refilled(tmp_path: Path) -> None:
    settings = tmp_path / "headrace.toml"
    settings.write_text("")
    async with life(TOPIC, toml=settings) as alive:
        await alive.covered()
        before = await trade(alive, 0)
        await alive.until(lambda: before in signatures(alive))
        await switch_stream(alive, settings, "false")
        await alive.until(lambda: alive.node.subscribed("logs") == 0)
        missed = {await trade(alive, number) for number in range(1, 4)}
        await switch_stream(alive, settings, "true")
        await alive.until(lambda: "backfilled" in states(alive))
        assert states(alive) == ["open", "backfilled"]
        assert signatures(alive) == {before, *missed}
        assert len(alive.of_type("event")) == 4  # none twice


async def test_wrong_subscriptions_are_refused_also_while_the_stream_is_off(tmp_path: Path) -> None:
    settings = tmp_path / "headrace.toml"
    settings.write_text("[features]\nstream = false\n")
    async with life(TOPIC, toml=settings, without=("SUBSCRIPTIONS",)) as alive:
        await alive.until(lambda: "source" in alive.service.health.components(), flowing=False)
        text = '[features]\nstream = false\n[rpc_pubsub]\nsubscriptions = ["logs:nobody"]\n'
        await asyncio.to_thread(settings.write_text, text)
        change = alive.service.config.reload(await asyncio.to_thread(alive.service.config.read))
        assert "logs:nobody" in str(change.errors[0])
        await switch_stream(alive, settings, "true")
        await alive.until(lambda: "source:rpc" in alive.service.health.components(), flowing=False)
        await alive.covered()


async def switch_stream(alive: Life, settings: Path, value: str) -> None:
    await asyncio.to_thread(settings.write_text, f"[features]\nstream = {value}\n")
    alive.service.config.reload(await asyncio.to_thread(alive.service.config.read))
