"""The contract of every store of checkpoints in the register."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path

import pytest

from headrace.inbox import INBOXES, Letter
from headrace.model.errors import ConfigError, TransientError
from headrace.runtime.clock import SystemClock
from headrace.sources.checkpoints import CHECKPOINTS, Checkpoints
from tests.contracts.contexts import Opener
from tests.orders.store.servers import settings_of

Open = Callable[..., Awaitable[Checkpoints]]


@pytest.fixture
async def open_one(kind_of_store: tuple[str, str], store_place: str) -> AsyncIterator[Open]:
    """Opens the same database each time, as another process would."""
    async with Opener(CHECKPOINTS, kind_of_store[0], SystemClock()) as opener:
        yield partial(opener.open, **settings_of(store_place))


async def test_checkpoint_outlives_the_process(open_one: Open) -> None:
    first = await open_one()
    assert await first.load() == {}
    await first.save("rpc_pubsub", {"slots": 447_120_000, "logs:pump": 2**53})
    assert await (await open_one()).load() == {"rpc_pubsub": {"slots": 447_120_000, "logs:pump": 2**53}}


async def test_save_replaces_one_source_only(open_one: Open) -> None:
    checkpoints = await open_one()
    await checkpoints.save("rpc_pubsub", {"slots": 7, "logs:a": 6})
    await checkpoints.save("yellowstone", {"slots": 9})
    await checkpoints.save("rpc_pubsub", {"slots": 5})
    assert await checkpoints.load() == {"rpc_pubsub": {"slots": 5}, "yellowstone": {"slots": 9}}


async def test_closed_store_raises_transient_error(open_one: Open) -> None:
    checkpoints = await open_one()
    await checkpoints.check(thorough=True)
    await checkpoints.close()
    with pytest.raises(TransientError):
        await checkpoints.load()
    with pytest.raises(TransientError):
        await checkpoints.save("rpc_pubsub", {"slots": 1})


async def test_database_is_shared_with_the_inboxes(
    open_one: Open, kind_of_store: tuple[str, str], store_place: str
) -> None:
    async with Opener(INBOXES, kind_of_store[0], SystemClock()) as opener:
        inbox, checkpoints = await opener.open(**settings_of(store_place)), await open_one()
        for slot in range(1, 6):
            await asyncio.gather(
                inbox.put([Letter("42", f"n{slot}", "{}", True)], None, lambda _: ""),
                checkpoints.save("rpc_pubsub", {"slots": slot}),
            )
        assert await checkpoints.load() == {"rpc_pubsub": {"slots": 5}}
        box = await inbox.box("42")
        assert box is not None
        assert box.waiting == 5


async def test_file_that_can_not_be_opened_raises_transient_error(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    async with Opener(CHECKPOINTS, "sqlite", SystemClock()) as opener:
        with pytest.raises(TransientError):
            await opener.open(file=str(folder / "checkpoints.db"))


async def test_url_that_is_none_is_refused() -> None:
    async with Opener(CHECKPOINTS, "postgres", SystemClock()) as opener:
        with pytest.raises(ConfigError):
            await opener.open(database_url="postgresql://user@:port/none")
