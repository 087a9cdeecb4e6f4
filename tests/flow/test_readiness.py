"""Readiness is true: each part that can fail turns it red soon after it failed, and green when it works again."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, closing
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest

from headrace.adapters import Register
from headrace.bus import Batch, Bus, Lane
from headrace.bus.memory import MemoryBus
from headrace.cores import installed
from headrace.model.errors import TransientError
from headrace.model.events import Position
from headrace.service.server import PARTS
from headrace.service.settings import REGISTERS
from headrace.testing import postgres
from tests.flow.desk import BODY, Desk, ask, desk
from tests.flow.life import life

SOON_S: Final = 30.0
"""On a machine that does much besides; a check comes every 2 s and waits for 3."""


NOTICE: Final = {
    "type": "Notification",
    "user_id": "ann",
    "title": "t",
    "message": "m",
    "notification_type": "n",
}


async def shown(client: Desk) -> tuple[int, dict[str, Any]]:
    answer = await client.http.get("/health/ready")
    return answer.status_code, answer.json()["components"]


async def turns(client: Desk, part: str, *, ready: bool) -> dict[str, Any]:
    """The part's line, as soon as it and the whole are ready, or are not."""
    async with asyncio.timeout(SOON_S):
        while True:
            status, parts = await shown(client)
            if parts[part]["ready"] == ready == (status == 200):
                return dict(parts[part])
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(SOON_S):
        while not await condition():  # noqa: ASYNC110  (another process's state)
            await asyncio.sleep(0.05)


async def is_refused(client: Desk, key: str = "k") -> bool:
    """Whether an order gets the answer that invites no second one."""
    answer = await client.http.post("/api/orders/execute", json=BODY, headers={"Idempotency-Key": key}, timeout=SOON_S)
    if answer.status_code == 503:
        assert (answer.json()["fate"], answer.json()["retryable"]) == ("unknown", True)
    return answer.status_code == 503


async def is_taken(client: Desk) -> bool:
    return not await is_refused(client)


async def test_every_part_of_a_service_is_on_the_board(tmp_path: Path) -> None:
    keys = tmp_path / "keys.json"
    await asyncio.to_thread(keys.write_text, '{"keys":[]}')
    settings = {
        "ORDERS_KEPT_S": "1",
        "TRANSACTION_LISTENER_ENABLED": "true",
        "SOLANA_RPC_WS": "ws://127.0.0.1:9",
        "RECORD_FILE": str(tmp_path / "recording"),
        "ORDER_FINALITY_MS": "1000",
    }
    async with desk(tmp_path, **settings) as client:
        owners = {task.get_name().partition("/")[0] for task in asyncio.all_tasks() if "/" in task.get_name()}
        owners -= {"test"}
        assert owners >= {"orders", "ingest", "config", "source", "gateway", "health", "worker"}
        _, parts = await shown(client)
        assert parts["core"]["detail"] == installed()[-1]
        assert owners <= PARTS.keys(), "who starts these tasks is not known to the health board"
        for owner in owners:
            assert any(part.split(":")[0] == PARTS[owner] for part in parts), owner
        assert set(parts) >= {
            "order store",
            "inbox",
            "chain",
            "venues",
            "venue:raydium",
            "venue:meteora",
            "worker",
            "orders",
            "bus",
            "cache",
            "pipeline",
            "tasks",
            "disk",
            "gateway",
            "source:rpc",
        }
        for part in parts.values():
            assert set(part) == {"ready", "required", "since", "detail", "last_error", "last_error_at"}
            assert part["since"] > 1_600_000_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["/bin/mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if made.returncode:
        pytest.skip("a file system of its own can't be mounted here")
    yield folder
    subprocess.run(["/bin/umount", "-l", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Leave no room."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
    return ballast


async def test_a_full_disk(tmp_path: Path, small_disk: Path) -> None:
    files = {"ORDERS_FILE": str(small_disk / "orders.db"), "INBOX_FILE": str(small_disk / "inbox.db")}
    async with desk(tmp_path, **files) as client:
        await turns(client, "disk", ready=True)
        ballast = await asyncio.to_thread(fill, small_disk)
        line = await turns(client, "disk", ready=False)
        assert "free" in line["last_error"]
        await turns(client, "order store", ready=False)
        assert await is_refused(client)
        await asyncio.to_thread(ballast.unlink)
        for part in ("disk", "order store", "inbox"):
            await turns(client, part, ready=True)
        assert await is_taken(client)


@pytest.mark.parametrize("what", ["moved away", "log deleted", "replaced"])
async def test_the_orders_file_while_it_is_used(tmp_path: Path, what: str) -> None:
    file = tmp_path / "orders.db"
    async with desk(tmp_path) as client:
        await client.place()
        if what == "moved away":
            await asyncio.to_thread(file.rename, tmp_path / "away")
        elif what == "replaced":
            await asyncio.to_thread(file.rename, tmp_path / "away")
            await asyncio.to_thread(file.touch)
        else:
            await asyncio.to_thread(Path(f"{file}-wal").unlink)
        if what != "log deleted":
            assert await is_refused(client)
            line = await turns(client, "order store", ready=False)
            assert "file" in line["last_error"]
            assert str(tmp_path) not in line["last_error"]
            assert await is_refused(client)
            await asyncio.to_thread((tmp_path / "away").rename, file)
        await turns(client, "order store", ready=True)
        assert await is_taken(client)
        listed = (await client.http.get("/api/orders")).json()["orders"]
        assert len(listed) == 2


@pytest.mark.parametrize("harm", ["garbage", "cut short", "gone"])
async def test_the_file_of_the_chain(tmp_path: Path, harm: str) -> None:
    file = tmp_path / "chain.db"
    async with desk(tmp_path) as client:
        await client.follow(f"/ws/{await client.place()}")
        if harm == "gone":
            await asyncio.to_thread(file.rename, tmp_path / "away")
        else:
            await asyncio.to_thread(spoil, file, harm)
        await turns(client, "chain", ready=False)
        if harm == "gone":
            await asyncio.to_thread((tmp_path / "away").rename, file)
            await turns(client, "chain", ready=True)


def spoil(file: Path, harm: str) -> None:
    """As a bad disk, or a copy that was broken off, leaves a file."""
    Path(f"{file}-wal").write_bytes(b"")
    size = file.stat().st_size
    file.write_bytes(b"" if harm == "cut short" else b"garbage!" * (size // 8))


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that may be frozen."""
    with ExitStack() as stack:
        yield stack.enter_context(postgres.server())


def processes(url: str) -> list[int]:
    """The server's own, the parent first."""
    folder = Path(parse_qs(urlsplit(url).query)["host"][0])
    parent = int((folder / "data" / "postmaster.pid").read_text().splitlines()[0])
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


@asynccontextmanager
async def frozen(url: str) -> AsyncIterator[None]:
    """All of the server stands still."""
    stopped = await asyncio.to_thread(processes, url)
    for process in stopped:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in stopped:
            os.kill(process, signal.SIGCONT)


async def test_a_frozen_database(tmp_path: Path, own_server: str) -> None:
    async with desk(tmp_path, DATABASE_URL=own_server, INBOX_FILE="") as client:
        assert await is_taken(client)
        async with frozen(own_server):
            for part in ("order store", "inbox"):
                line = await turns(client, part, ready=False)
                assert "postgres" not in line["last_error"]
            assert (await client.http.get("/health/live")).status_code == 200
        for part in ("order store", "inbox"):
            await turns(client, part, ready=True)
        assert await is_taken(client)


async def answers_unknown(client: Desk) -> None:
    """Every way to an order says that nobody knows."""
    assert await is_refused(client)
    for path in ("/api/orders", "/api/orders/some", "/api/orders/some/events", "/api/portfolio?user=ann"):
        answer = await client.http.get(path, timeout=SOON_S)
        assert (answer.status_code, answer.json().get("fate")) == (503, "unknown"), path
    answer = await client.http.post("/api/orders/some/cancel", timeout=SOON_S)
    assert (answer.status_code, answer.json()["fate"]) == (503, "unknown")
    async with client.connect("?user_id=ann") as socket:
        for number, (verb, data) in enumerate(
            (
                ("execute", {**BODY, "idempotencyKey": "k"}),
                ("get", {"orderId": "some"}),
                ("cancel", {"orderId": "some"}),
            )
        ):
            frame = await ask(socket, f"order.{verb}", data, number)
            assert frame["type"] == "error"
            assert frame["data"]["fate"] == "unknown", frame


async def test_a_database_that_is_away_at_the_start(tmp_path: Path, own_server: str) -> None:
    async with desk(tmp_path, DATABASE_URL=own_server, INBOX_FILE="") as client:
        assert await is_taken(client)
        placed = (await client.http.get("/api/orders")).json()["orders"][0]["orderId"]
    folder = Path(parse_qs(urlsplit(own_server).query)["host"][0])
    [socket] = await asyncio.to_thread(lambda: [it for it in folder.iterdir() if it.name == ".s.PGSQL.5432"])
    await asyncio.to_thread(socket.rename, folder / "hidden")
    try:
        async with desk(tmp_path, DATABASE_URL=own_server, INBOX_FILE="") as client:
            status, parts = await shown(client)
            assert status == 503
            assert not parts["order store"]["ready"]
            await answers_unknown(client)
            await asyncio.to_thread((folder / "hidden").rename, socket)
            for part in ("order store", "inbox"):
                await turns(client, part, ready=True)
            assert (await client.http.get(f"/api/orders/{placed}")).status_code == 200
            assert await is_taken(client)
    finally:
        await asyncio.to_thread(lambda: (folder / "hidden").exists() and (folder / "hidden").rename(socket))


@pytest.mark.parametrize("file", ["orders.db", "chain.db"])
async def test_a_file_that_can_not_be_opened_at_the_start(tmp_path: Path, file: str) -> None:
    """As when the folder was not writable yet; nobody asked for orders, so the server starts all the same."""
    await asyncio.to_thread((tmp_path / file).mkdir)
    async with desk(tmp_path, without=["ORDERS_ENABLED"]) as client:
        status, _ = await shown(client)
        assert status == 503
        if file == "orders.db":
            await answers_unknown(client)
        await asyncio.to_thread((tmp_path / file).rmdir)
        await turns(client, "order store" if file == "orders.db" else "chain", ready=True)
        await until(lambda: is_taken(client))
        order_id = await client.place()
        assert (await client.follow(f"/ws/{order_id}"))[-1]["status"] == "CONFIRMED"


async def test_an_inbox_that_can_not_be_opened_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    await asyncio.to_thread((tmp_path / "headrace-inbox.db").mkdir)
    letter = {"user_ids": ["ann"], "data": NOTICE, "ack": True}
    async with desk(tmp_path, without=["INBOX_FILE"]) as client:
        assert (await shown(client))[0] == 503
        answer = await client.http.post("/api/ws/broadcast", json=letter, timeout=SOON_S)
        assert answer.status_code == 503, answer.text
        await asyncio.to_thread((tmp_path / "headrace-inbox.db").rmdir)
        await turns(client, "inbox", ready=True)
        answer = await client.http.post("/api/ws/broadcast", json=letter, timeout=SOON_S)
        assert answer.status_code in (200, 201, 202), answer.text


async def test_orders_that_are_off_say_so(tmp_path: Path) -> None:
    async with desk(tmp_path, ORDERS_ENABLED="false") as client:
        assert (await shown(client))[0] == 200
        for method, path in (("POST", "/api/orders/execute"), ("GET", "/api/orders/some"), ("GET", "/api/orders")):
            answer = await client.http.request(method, path, json=BODY if method == "POST" else None)
            assert (answer.status_code, answer.json()["code"]) == (501, "orders_off"), path
            assert answer.json()["fate"] == "unknown"


async def test_venues_that_give_no_quotes(tmp_path: Path) -> None:
    async with desk(tmp_path, MOCK_QUOTE_ERROR="1") as client:
        line = await turns(client, "venues", ready=False)
        assert line["last_error"] == "no venue gives quotes"


async def test_a_worker_that_can_claim_no_order(tmp_path: Path) -> None:
    """The table of the orders is away, and the file can be written all the same."""
    file = tmp_path / "orders.db"
    async with desk(tmp_path) as client:
        await client.follow(f"/ws/{await client.place()}")
        before = (await shown(client))[1]["worker"]["since"]
        await asyncio.to_thread(execute, file, "alter table orders rename to away")
        line = await turns(client, "worker", ready=False)
        assert line["required"]
        assert line["since"] > before
        assert "no order can be claimed" in line["last_error"]
        await asyncio.to_thread(execute, file, "alter table away rename to orders")
        assert (await turns(client, "worker", ready=True))["since"] > line["since"]
        await client.follow(f"/ws/{await client.place()}")


def execute(file: Path, sql: str) -> None:
    """Change the database of a running service, as another program may."""
    with closing(sqlite3.connect(file, timeout=SOON_S)) as connection:
        connection.execute(sql)


class AwayBus(MemoryBus):
    """A bus that takes nothing while `away`."""

    away = False

    def append(self, lane: Lane, token: int, batch: Batch) -> Sequence[Position]:
        if self.away:
            raise TransientError("the bus is away")
        return super().append(lane, token, batch)


async def test_a_pipeline_whose_messages_the_bus_refuses() -> None:
    buses = Register[Bus]("bus", {"memory": f"{__name__}:AwayBus"})
    async with life(registers=REGISTERS._replace(buses=buses)) as alive:
        bus = alive.service.bus
        assert isinstance(bus, AwayBus)
        client = Desk(urlsplit(alive.url).port or 0, alive.service)
        await alive.covered()
        before = (await shown(client))[1]["pipeline"]["since"]
        bus.away = True
        alive.node.advance_slot()
        line = await turns(client, "pipeline", ready=False)
        assert line["required"]
        assert line["since"] > before
        assert line["last_error"] == "updates can't be published: the bus is away"
        bus.away = False
        assert (await turns(client, "pipeline", ready=True))["since"] > line["since"]
        await client.http.aclose()


@pytest.fixture
def failing_disk(tmp_path: Path) -> Iterator["FailingDisk"]:
    """A file system that can be made to turn read-only, as Linux does where a disk fails."""
    disk = FailingDisk(tmp_path / "image", tmp_path / "disk")
    try:
        disk.make()
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a file system that turns read-only can't be made here")
    yield disk
    subprocess.run(["/bin/umount", "-l", str(disk.folder)], check=True)


class FailingDisk:
    """An ext4 in a file, which its `folder` shows."""

    def __init__(self, image: Path, folder: Path) -> None:
        self._image, self.folder = image, folder

    def make(self) -> None:
        self.folder.mkdir()
        with self._image.open("wb") as file:
            file.truncate(8 * 1024 * 1024)
        _run("/sbin/mkfs.ext4", "-q", "-O", "^has_journal", str(self._image))
        self._mount()
        if not self._trigger().exists():
            _run("/bin/umount", str(self.folder))
            raise OSError("no way to report an error")

    def fail(self) -> None:
        """Report an error of the disk: the kernel takes the file system as read-only from then on."""
        self._trigger().write_text("test")

    def repair(self) -> None:
        """Mount it anew, as soon as no file of it is open."""
        while subprocess.run(["/bin/umount", str(self.folder)], check=False, capture_output=True).returncode:
            time.sleep(0.01)
        self._mount()

    def _mount(self) -> None:
        _run("/bin/mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder))

    def _trigger(self) -> Path:
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        (device,) = (Path(fields[0]).name for fields in mounts if fields[1] == str(self.folder))
        return Path(f"/sys/fs/ext4/{device}/trigger_fs_error")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


async def test_files_that_become_read_only(tmp_path: Path, failing_disk: FailingDisk) -> None:
    names = {"ORDERS_FILE": "orders.db", "INBOX_FILE": "inbox.db"}
    files = {name: str(failing_disk.folder / file) for name, file in names.items()}
    async with desk(tmp_path, **files) as client:
        placed = await client.place()
        await client.follow(f"/ws/{placed}")
        await asyncio.to_thread(failing_disk.fail)
        for part in ("order store", "inbox"):
            line = await turns(client, part, ready=False)
            assert "the database can't be used" in line["last_error"], part
            assert line["since"] <= line["last_error_at"]
        assert await is_refused(client)
        await asyncio.to_thread(failing_disk.repair)
        for part in ("order store", "inbox"):
            await turns(client, part, ready=True)
        assert await is_taken(client)
        assert (await client.http.get(f"/api/orders/{placed}")).status_code == 200
