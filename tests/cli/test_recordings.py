"""`headrace replay --print` and `headrace record`: the same bytes each time, and clear words for spoiled files."""

import itertools
import json
import signal
from pathlib import Path

import pytest

from headrace.sdk import Client, Event, NotRecovered, Value
from headrace.sources.recording_file import (
    Block,
    encode_block,
    encode_header,
    encode_update,
    read_blocks,
    read_header,
)
from headrace.testing.node import ScriptedNode
from tests.cli.command import DEMO, NOWHERE, run, running
from tests.cli.conftest import Headrace
from tests.flow.life import pump_trade_logs
from tests.mainnet import PUMP


def test_the_same_recording_prints_the_same_bytes(headrace: Headrace) -> None:
    first = headrace("replay", str(DEMO), "--print", "--speed", "max")
    assert (first.status, first.err) == (0, "")
    assert headrace("replay", str(DEMO), "--print", "--speed", "1000") == first
    assert first.out.count("\n") > 500


def test_only_some_topics(headrace: Headrace) -> None:
    result = headrace("replay", str(DEMO), "--print", "--speed", "max", "--topic", "trades:pump", "--topic", "slots")
    frames = [json.loads(line) for line in result.out.splitlines()]
    assert {frame["topic"] for frame in frames} == {"trades:pump", "slots"}
    trades = [int(frame["offset"]) for frame in frames if frame["topic"] == "trades:pump"]
    assert trades == list(range(1, len(trades) + 1))


def demo_in_blocks(path: Path) -> list[int]:
    """Write the demo to `path` in small blocks; returns where each begins."""
    with DEMO.open("rb") as file:
        parts = [encode_header(read_header(file))]
        found = [block.updates for block in read_blocks(file) if isinstance(block, Block)]
    updates = [encode_update(each) for block in found for each in block]
    parts += [encode_block(updates[start : start + 20]) for start in range(0, len(updates), 20)]
    path.write_bytes(b"".join(parts) + encode_block(()))
    return list(itertools.accumulate(map(len, parts[:-1])))


def test_of_a_cut_file_all_that_is_whole_is_played(headrace: Headrace) -> None:
    cut_at = demo_in_blocks(file := Path("cut.hrec"))[5]
    whole = headrace("replay", str(file), "--print", "--speed", "max").out
    file.write_bytes(file.read_bytes()[: cut_at + 100])
    result = headrace("replay", str(file), "--print", "--speed", "max")
    assert result.status == 0
    assert result.out
    assert whole.startswith(result.out)
    assert f"cut off at offset {cut_at}: " in result.err


def test_of_a_damaged_file_the_rest_is_played(headrace: Headrace) -> None:
    damaged_at = demo_in_blocks(file := Path("damaged.hrec"))[5]
    whole = headrace("replay", str(file), "--print", "--speed", "max").out
    data = bytearray(file.read_bytes())
    data[damaged_at + 100] ^= 0xFF
    file.write_bytes(data)
    result = headrace("replay", str(file), "--print", "--speed", "max")
    assert result.status == 0
    assert whole.splitlines()[-1].partition('"data"')[2] in result.out
    assert len(result.out) < len(whole)
    assert f"block at offset {damaged_at}: wrong checksum" in result.err


@pytest.mark.parametrize("serving", [True, False])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"hello", "recording_foreign: not a Headrace recording (it must begin with HREC)"),
        (b"", "recording_foreign: not a Headrace recording (it must begin with HREC)"),
        (DEMO.read_bytes()[:40], "recording_header: header of "),
        (b"HREC\x63\x00" + bytes(8), "recording_version: written as version 99, this Headrace reads 1"),
    ],
)
def test_what_is_no_recording(headrace: Headrace, content: bytes, says: str, serving: bool) -> None:
    Path("file.hrec").write_bytes(content)
    result = headrace("replay", "file.hrec", *([] if serving else ["--print"]))
    assert (result.status, result.out, result.err.count("\n")) == (1, "", 1)
    assert result.err.startswith(f"headrace: file.hrec: {says}")


def test_no_file(headrace: Headrace) -> None:
    assert headrace("replay", "none.hrec", "--print") == (1, "", "headrace: none.hrec: No such file or directory\n")


async def test_a_reader_that_has_had_enough(tmp_path: Path) -> None:
    """As in `headrace replay … --print | head -1`."""
    async with running(tmp_path, "replay", str(DEMO), "--print", "--speed", "max") as command:
        assert command.process.stdout is not None
        command.process.stdout._transport.close()  # type: ignore[attr-defined]
        result = await command.end()
    assert (result.status, result.err) == (141, "")


async def test_what_was_served_live_is_what_the_recording_plays(tmp_path: Path) -> None:
    logs = pump_trade_logs()[:12]
    live: list[Value] = []
    async with ScriptedNode() as node:
        given = {"SOLANA_RPC_WS": node.ws_url, "SOLANA_RPC_URL": node.http_url, "SUBSCRIPTIONS": "logs:pump"}
        async with running(tmp_path, "serve", "--record", "live.hrec", **given) as service:
            async with Client((await service.url()).replace("http", "ws") + "/ws") as client:
                trades = await client.subscribe("trades:pump").started()
                await node.until(lambda: node.subscribed("logs") > 0 and node.subscribed("slot") > 0)
                for lines in logs:
                    node.advance_slot()
                    node.emit_transaction([PUMP], lines)
                while sum(isinstance(value, Event) for value in live) < len(logs):
                    live.append(await anext(trades))
            service.tell(signal.SIGTERM)
            assert (await service.end()).status == 0
    replay = await run(tmp_path, "replay", "live.hrec", "--print", "--speed", "max", "--topic", "trades:pump")
    played = [json.loads(line) for line in replay.out.splitlines()]
    served = [json.loads(value.frame) for value in live if not isinstance(value, NotRecovered)]
    assert [without_epoch(frame) for frame in played[: len(live)]] == [without_epoch(frame) for frame in served]


def without_epoch(frame: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in frame.items() if name != "epoch"}


async def test_record_stops_by_itself_and_the_file_is_whole(tmp_path: Path) -> None:
    async with ScriptedNode() as node:
        given = {"SOLANA_RPC_WS": node.ws_url, "SOLANA_RPC_URL": node.http_url, "SUBSCRIPTIONS": "logs:pump"}
        async with running(tmp_path, "record", "a.hrec", "--seconds", "0.5", **given) as command:
            await node.until(lambda: node.subscribed("logs") > 0)
            signature = node.emit_transaction([PUMP], pump_trade_logs()[0]).signature
            result = await command.end()
        assert result.status == 0
        assert result.err.splitlines()[-1] == "1 updates recorded in a.hrec"
        again = await run(tmp_path, "record", "a.hrec", "--seconds", "0.1", **given)
        assert (again.status, again.err.splitlines()[-1]) == (
            2, "headrace: recording: got a.hrec, expected a file that is not there yet, or --append"
        )  # fmt: skip
        more = await run(tmp_path, "record", "a.hrec", "--append", "--seconds", "0.1", **given)
        assert more.status == 0
    replay = await run(tmp_path, "replay", "a.hrec", "--print", "--speed", "max", "--topic", "trades:pump")
    assert [json.loads(line)["chain"]["signature"] for line in replay.out.splitlines()] == [signature]


async def test_record_ends_well_when_told_to(tmp_path: Path) -> None:
    async with running(tmp_path, "record", "a.hrec", SOLANA_RPC_WS=NOWHERE) as command:
        await command.says("no_connection")
        command.tell(signal.SIGINT)
        result = await command.end()
    assert result.status == 0
    assert "0 updates recorded in a.hrec" in result.err
    assert (tmp_path / "a.hrec").is_file()


def test_record_needs_a_place(headrace: Headrace) -> None:
    result = headrace("record", "no/such/folder/a.hrec", "--seconds", "1")
    assert result.status == 2
    assert "\nheadrace: recording: got no/such/folder/a.hrec, expected a place to write" in f"\n{result.err}"


@pytest.mark.parametrize("seconds", ["0", "-1", "nan", "inf", "x"])
def test_seconds_are_a_number_above_zero(headrace: Headrace, seconds: str) -> None:
    result = headrace("record", "a.hrec", f"--seconds={seconds}")
    assert result.status == 2
    assert f"argument --seconds: got '{seconds}', expected a number above 0" in result.err
