"""Recording and replay: nothing lost, nothing changed, damage named, hostile sizes refused."""

import asyncio
import errno
import resource
import signal
import struct
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from zlib import crc32

import msgspec
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.model.errors import BadInputError, ConfigError
from headrace.model.updates import (
    AccountUpdate,
    AnyUpdate,
    GapUpdate,
    Instruction,
    LogsUpdate,
    RewindUpdate,
    SlotUpdate,
    TokenBalance,
    TransactionUpdate,
)
from headrace.runtime.channel import Channel
from headrace.runtime.clock import ManualClock
from headrace.runtime.health import Health
from headrace.sources import Ending
from headrace.sources.recording import Recorder, Recording, header_of
from headrace.sources.recording_file import (
    BLOCK_RAW_MAX,
    UPDATE_MAX,
    Block,
    RecordingHeader,
    encode_block,
    encode_header,
    encode_update,
    read_blocks,
    read_header,
)
from tests.examples import examples
from tests.hostile.meter import Meter

HEADER = RecordingHeader(id="rec1", started_ns=5, sources=("rpc-0",))


def slot(number: int, at_s: float = 0.0) -> SlotUpdate:
    return SlotUpdate(source="rpc-0", feed="slots", received_ns=round(at_s * 1e9), slot=number, status="processed")


ONE_OF_EACH: list[AnyUpdate] = [
    AccountUpdate(
        source="a", feed="f", received_ns=1, slot=2, pubkey="k", owner="o", lamports=2**64 - 1, data=b"\0\xff"
    ),
    LogsUpdate(
        source="a", feed="f", received_ns=1, slot=2, signature="s", err={"InstructionError": [2, "X"]}, logs=("é",)
    ),
    TransactionUpdate(
        source="a",
        feed="f",
        received_ns=1,
        slot=2,
        signature="s",
        err=None,
        version=1,
        account_keys=("k",),
        instructions=(Instruction(program_id="p", accounts=("k",), data=b"x", path=(1, 0), parsed={"a": [1, None]}),),
        logs=None,
        pre_token_balances=(TokenBalance(account="k", mint="m", owner=None, amount=2**64 - 1, decimals=6),),
    ),
    slot(2**63),
    GapUpdate(source="a", feed="f", received_ns=1, slot=9, gap_id="g", from_slot=3, to_slot=9, state="open"),
    RewindUpdate(source="a", feed="f", received_ns=1, slot=0, lap=1),
]


async def record(path: Path, updates: Sequence[AnyUpdate], *, append: bool = False, block_bytes: int = 64) -> Recorder:
    intake: Channel[AnyUpdate] = Channel(max(1, len(updates)))
    for update in updates:
        intake.put_nowait(update)
    intake.close()
    recorder = Recorder(path, HEADER, ManualClock(), append=append, block_bytes=block_bytes)
    await recorder.run(intake)
    return recorder


async def replay(path: Path) -> tuple[list[AnyUpdate], Ending]:
    outlet: Channel[AnyUpdate] = Channel(10_000)
    ending = await Recording(path, ManualClock(), speed=None).run(outlet)
    return (await outlet.get_batch(10_000) if len(outlet) else []), ending


async def test_every_kind_of_update_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "all.hrec"
    recorder = await record(path, ONE_OF_EACH)
    assert recorder.recorded == len(ONE_OF_EACH)
    assert await asyncio.to_thread(header_of, path) == HEADER
    assert await replay(path) == (ONE_OF_EACH, Ending("exhausted"))
    assert not recorder.part.exists()


async def test_an_integer_that_no_chain_has_is_skipped(tmp_path: Path) -> None:
    recorder = await record(tmp_path / "r", [slot(1), slot(2**64), slot(3)])
    assert (recorder.recorded, recorder.skipped) == (2, 1)
    assert (await replay(tmp_path / "r"))[0] == [slot(1), slot(3)]


async def test_a_tap_passes_everything_on_in_order(tmp_path: Path) -> None:
    intake: Channel[AnyUpdate] = Channel(100)
    onward: Channel[AnyUpdate] = Channel(3)
    updates: list[AnyUpdate] = [slot(n) for n in range(20)]
    for update in updates:
        intake.put_nowait(update)
    intake.close()
    got: list[AnyUpdate] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(Recorder(tmp_path / "tap", HEADER, ManualClock()).run(intake, onward))
        while len(got) < len(updates):
            got.extend(await onward.get_batch())
    assert got == updates
    assert onward.closed
    assert (await replay(tmp_path / "tap"))[0] == updates


async def test_quiet_updates_are_written_at_the_flush_interval_and_survive_a_crash(tmp_path: Path) -> None:
    clock, intake = ManualClock(), Channel[AnyUpdate](10)
    recorder = Recorder(tmp_path / "live", HEADER, clock, flush_interval_s=2.0)
    task = asyncio.create_task(recorder.run(intake))
    await intake.put(slot(1))
    await clock.advance(2.0)
    while not recorder.part.exists() or (await replay(recorder.part))[0] != [slot(1)]:
        await clock.advance(2.0)
    assert (await replay(recorder.part))[1].detail.startswith("cut off at offset")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await replay(tmp_path / "live") == ([slot(1)], Ending("exhausted")), "a cancelled recorder finishes its file"


async def test_nothing_that_exists_is_overwritten_and_append_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r"
    await record(path, [slot(1)])
    with pytest.raises(ConfigError, match="a file that is not there yet"):
        await record(path, [slot(2)])
    await record(path, [slot(2)], append=True)
    assert (await replay(path))[0] == [slot(1), slot(2)]
    torn = path.read_bytes()[:-25]
    path.unlink()
    (tmp_path / "r.part").write_bytes(torn)
    await record(path, [slot(3)], append=True)
    assert (await replay(path))[0] == [slot(1), slot(3)], "goes on after the last whole block"
    (tmp_path / "r.part").write_bytes(b"mine")
    with pytest.raises(ConfigError, match="a place to write"):
        await record(path, [slot(4)], append=True)
    assert (tmp_path / "r.part").read_bytes() == b"mine"


class FullDisk(Recorder):
    """A recorder whose disk has no room."""

    def _append_block(self, file: BinaryIO, updates: list[bytes]) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")


async def test_a_disk_that_fails_ends_the_recording_not_the_flow(tmp_path: Path) -> None:
    intake: Channel[AnyUpdate] = Channel(10)
    onward: Channel[AnyUpdate] = Channel(10)
    for number in (1, 2, 3):
        intake.put_nowait(slot(number))
    intake.close()
    health = Health()
    recorder = FullDisk(tmp_path / "r", HEADER, ManualClock(), health=health, block_bytes=1)
    await recorder.run(intake, onward)
    assert health.components()["recording"][:3] == (False, "stopped: no space left on device", False)
    assert health.ready
    assert [update.slot for update in await onward.get_batch()] == [1, 2, 3]
    assert recorder.fault is not None
    with pytest.raises(OSError, match="no space left"):
        await FullDisk(tmp_path / "s", HEADER, ManualClock()).run(intake)


async def test_a_disk_that_is_really_full_leaves_a_recording_up_to_its_last_whole_block(tmp_path: Path) -> None:
    """As a full disk does: what fits is written, the rest fails. A limit on the file's size is such a disk."""
    intake, onward, health = Channel[AnyUpdate](3000), Channel[AnyUpdate](3000), Health()
    for number in range(2000):
        intake.put_nowait(slot(number))
    intake.close()
    recorder = Recorder(tmp_path / "r", HEADER, ManualClock(), health=health, block_bytes=2000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
    try:
        await recorder.run(intake, onward)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert len(await onward.get_batch(3000)) == 2000, "the flow goes on"
    assert not health.components()["recording"].ready
    assert not recorder.path.exists()
    kept, ending = await replay(recorder.part)
    assert kept == [slot(number) for number in range(len(kept))]
    assert 0 < len(kept) < 2000
    assert "cut off at offset" in ending.detail


async def test_a_place_that_can_not_be_written_to_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ConfigError, match="a place to write a recording to"):
        await record(tmp_path / "file" / "r", [slot(1)])


async def test_append_never_cuts_off_more_than_a_crash_can_have_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.sources.recording.BLOCK_RAW_MAX", 20)
    first = len(encode_header(HEADER))
    damaged = bytearray(whole())
    damaged[first] ^= 1
    (tmp_path / "r").write_bytes(damaged)
    with pytest.raises(ConfigError, match="nothing after it can be found"):
        await record(tmp_path / "r", [slot(4)], append=True)
    assert (tmp_path / "r.part").read_bytes() == damaged


async def test_a_long_file_is_read_a_block_at_a_time_and_only_as_it_is_taken(tmp_path: Path) -> None:
    updates: list[AnyUpdate] = [slot(number) for number in range(500)]
    await record(tmp_path / "r", updates, block_bytes=200)
    file = BytesIO((tmp_path / "r").read_bytes())
    read_header(file)
    ends = [file.tell() for block in read_blocks(file) if isinstance(block, Block)]
    assert len(ends) > 50
    assert ends == sorted(set(ends)), "each step reads one block further"
    outlet: Channel[AnyUpdate] = Channel(1)
    recording = Recording(tmp_path / "r", ManualClock(), speed=None)
    task = asyncio.create_task(recording.run(outlet))
    got: list[AnyUpdate] = []
    while len(got) < len(updates):
        got += await outlet.get_batch()
        assert recording.delivered <= len(got) + 1
    assert got == updates
    await task


@pytest.mark.parametrize("speed", [0.5, 1.0, 100.0, None])
async def test_what_is_delivered_does_not_depend_on_the_speed(tmp_path: Path, speed: float | None) -> None:
    updates: list[AnyUpdate] = [slot(n, at_s=at_s) for n, at_s in enumerate((5.0, 5.0, 7.5, 6.0, 60.0, 1.0, 61.0))]
    await record(tmp_path / "r", updates)
    clock, outlet = ManualClock(), Channel[AnyUpdate](10)
    task = asyncio.create_task(Recording(tmp_path / "r", clock, speed=speed).run(outlet))
    while not task.done():
        await clock.advance(10)
    assert await outlet.get_batch() == updates


def whole(count: int = 3) -> bytes:
    blocks = [encode_block([encode_update(slot(n))]) for n in range(count)]
    return encode_header(HEADER) + b"".join(blocks) + encode_block(())


async def test_a_file_cut_anywhere_is_good_up_to_its_last_whole_block(tmp_path: Path) -> None:
    path = tmp_path / "cut"
    first = len(encode_header(HEADER))
    size = len(encode_block([encode_update(slot(0))]))
    for cut in range(len(whole())):
        path.write_bytes(whole()[:cut])
        updates, ending = await replay(path)
        good = min(3, max(0, cut - first) // size)
        assert updates == [slot(n) for n in range(good)]
        if cut < first:
            assert ending.how == "failed"
        else:
            assert ending == Ending("exhausted", ending.detail)
            assert f"cut off at offset {first + good * size}" in ending.detail


@given(position=st.integers(0, len(whole()) - 1), value=st.integers(1, 255))
@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_flipped_byte_never_changes_an_update(tmp_path: Path, position: int, value: int) -> None:
    damaged = bytearray(whole())
    damaged[position] ^= value
    path = tmp_path / "flipped"
    path.write_bytes(damaged)
    updates, ending = asyncio.run(replay(path))
    assert [u for u in (slot(0), slot(1), slot(2)) if u in updates] == updates
    assert len(updates) < 3 or ending.detail, "only the end mark was hit"


async def test_a_damaged_block_is_skipped_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(whole())
    first = len(encode_header(HEADER))
    data[first + 25] ^= 1
    (tmp_path / "r").write_bytes(data)
    updates, ending = await replay(tmp_path / "r")
    assert updates == [slot(1), slot(2)]
    assert ending == Ending("exhausted")
    output = capsys.readouterr()
    assert f"block at offset {first}: wrong checksum, 1 updates lost" in output.out + output.err


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a Headrace recording"),
        (b"PK\x03\x04" + bytes(100), "not a Headrace recording"),
        (b"HREC\x09\x00" + bytes(100), "version 9, this Headrace reads 1"),
        (b"HREC\x01\x00" + struct.pack("<II", 2**31, 0), "declares a header of 2147483648 bytes"),
        (b"HREC\x01\x00" + struct.pack("<II", 1, crc32(b"\xc1")) + b"\xc1", "recording_header"),
        (b"HREC\x01\x00" + struct.pack("<II", 9, 0) + bytes(9), "header of 9 bytes at offset 14 is damaged"),
    ],
)
async def test_what_is_no_recording_fails_with_a_reason(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "foreign"
    path.write_bytes(data)
    _, ending = await replay(path)
    assert ending.how == "failed"
    assert message in ending.detail
    with pytest.raises(BadInputError):
        await asyncio.to_thread(header_of, path)


async def test_a_missing_file_fails_with_a_reason(tmp_path: Path) -> None:
    assert (await replay(tmp_path / "nowhere"))[1].how == "failed"


def forged(payload: bytes, raw_size: int, size: int | None = None, *, count: int = 1) -> bytes:
    counts = struct.pack("<IIII", len(payload) if size is None else size, raw_size, count, crc32(payload))
    return encode_header(HEADER) + counts + struct.pack("<I", crc32(counts)) + payload + encode_block(())


ONE = struct.pack(">BI", 0xDD, 1)
BAD_UTF8 = ONE + encode_update(ONE_OF_EACH[1]).replace("é".encode(), b"\xff\xff")
DEEP = ONE + encode_update(ONE_OF_EACH[1]).replace(b"\x92\x02\xa1X", b"\x91" * 100_000 + b"\xc0")


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (forged(b"", 5, size=BLOCK_RAW_MAX + 1), "declares 67108865 bytes"),
        (forged(zstandard.compress(bytes(1000)), BLOCK_RAW_MAX + 1), "declares 67108865 bytes"),
        (forged(zstandard.compress(bytes(1_000_000)), 10), "zstd size is not the declared 10 bytes"),
        (forged(zstandard.ZstdCompressor(write_content_size=False).compress(bytes(100)), 10), "zstd size is not"),
        (forged(b"no zstd", 10), "error when determining content size"),
        (forged(zstandard.compress(b"\x91" * 100_000), 100_000), "block at offset"),
        (forged(zstandard.compress(DEEP), len(DEEP)), "recursion"),
        (forged(zstandard.compress(BAD_UTF8), len(BAD_UTF8)), "utf-8"),
        (forged(zstandard.compress(b"\xc1"), 1), "1 bytes do not hold 1 updates"),
        (forged(zstandard.compress(ONE + b"\x01" + bytes(40)), 46), "block at offset"),
        (forged(zstandard.compress(ONE + b"\xd9\x28" + bytes(40)), 47), "Expected"),
    ],
)
async def test_hostile_blocks_are_refused_by_name(tmp_path: Path, data: bytes, fault: str) -> None:
    path = tmp_path / "hostile"
    path.write_bytes(data)
    told = list(read_blocks(BytesIO(data[len(encode_header(HEADER)) :])))
    assert fault in told[0].fault
    assert not (isinstance(told[0], Block) and told[0].updates)
    assert (await replay(path))[0] == []


_LOGS = encode_update(ONE_OF_EACH[1])
_MANY = 0x800000
_LISTS, _TEXTS = (struct.pack(">BI", 0xDD, _MANY) + value * _MANY for value in (b"\x90", b"\xa0"))
BOMBS: dict[str, tuple[bytes, int]] = {
    "lists in an error": (ONE + _LOGS.replace(b"\x92\x02\xa1X", _LISTS), 1),
    "texts in an error": (ONE + _LOGS.replace(b"\x92\x02\xa1X", _TEXTS), 1),
    "nothing but empty lists": (_LISTS, _MANY),
    "empty lists in one": (_LISTS, 1),
    "small updates": (struct.pack(">BI", 0xDD, 400_000) + encode_update(slot(1)) * 400_000, 400_000),
}


@pytest.mark.parametrize("name", BOMBS)
async def test_a_block_of_many_values_is_refused_before_they_are_made(name: str) -> None:
    raw, count = BOMBS[name]
    payload = zstandard.compress(raw)
    file = BytesIO(forged(payload, len(raw), count=count)[len(encode_header(HEADER)) :])
    async with Meter() as meter:
        first = next(iter(read_blocks(file)))
    assert isinstance(first, Block)
    assert not first.updates
    assert first.fault.startswith("block at offset 0: ")
    assert meter.grown_bytes < 4 * len(raw) + 16_000_000


async def test_an_update_that_no_block_may_hold_is_not_recorded(tmp_path: Path) -> None:
    large = msgspec.structs.replace(ONE_OF_EACH[1], logs=("x" * (UPDATE_MAX + 1),))
    account = msgspec.structs.replace(ONE_OF_EACH[0], data=b"\x90" * 10_485_760)
    updates: list[AnyUpdate] = [account, large, *ONE_OF_EACH]
    await record(tmp_path / "r", updates)
    assert (await replay(tmp_path / "r"))[0] == [account, *ONE_OF_EACH]


@pytest.mark.parametrize(("speed", "waits"), [(1.0, (0.0, 2.0, 6.0)), (4.0, (0.0, 0.5, 1.5))])
async def test_receive_times_set_the_pace(tmp_path: Path, speed: float, waits: tuple[float, ...]) -> None:
    updates: list[AnyUpdate] = [slot(1, at_s=100.0), slot(2, at_s=102.0), slot(3, at_s=101.0), slot(4, at_s=106.0)]
    await record(tmp_path / "r", updates)
    clock, outlet = ManualClock(), Channel[AnyUpdate](10)
    task = asyncio.create_task(Recording(tmp_path / "r", clock, speed=speed).run(outlet))
    arrived: list[tuple[float, int]] = []
    while not task.done() or len(outlet):
        while len(outlet):
            arrived += [(clock.monotonic(), update.slot) for update in await outlet.get_batch()]
        await asyncio.sleep(0)
        if clock._sleepers:
            await clock.advance(clock._sleepers[0][0] - clock.monotonic())
    assert arrived == [(waits[0], 1), (waits[1], 2), (waits[1], 3), (waits[2], 4)]


async def test_laps_are_announced_and_each_is_the_same(tmp_path: Path) -> None:
    await record(tmp_path / "r", [slot(1), slot(2)])
    outlet: Channel[AnyUpdate] = Channel(2)
    task = asyncio.create_task(Recording(tmp_path / "r", ManualClock(), speed=None, loop=True).run(outlet))
    got: list[AnyUpdate] = []
    while len(got) < 8:
        got += await outlet.get_batch()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert got[0:2] == got[3:5] == got[6:8] == [slot(1), slot(2)]
    assert [u.lap for u in got if isinstance(u, RewindUpdate)] == [1, 2]


async def test_an_empty_recording_does_not_loop(tmp_path: Path) -> None:
    await record(tmp_path / "r", [])
    ending = await Recording(tmp_path / "r", ManualClock(), loop=True).run(Channel(1))
    assert ending == Ending("exhausted")


def test_a_speed_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="a number above 0"):
        Recording(Path("x"), ManualClock(), speed=0)
