"""The venue of pools on a node and a stream: recorded answers, one slot, age, bounds, and what is not there."""

import struct
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

import pytest

from headrace.adapters import Cover
from headrace.model.amounts import BaseUnits, Bps
from headrace.model.errors import TransientError
from headrace.model.facts import AccountChanged, Dead, Gap, GapDeclared, News, Origin, Restarted, SlotChanged
from headrace.model.keys import USDC_MINT, WSOL_MINT
from headrace.model.orders import OrderRequest, Quote, Token
from headrace.model.updates import AccountUpdate, Commitment
from headrace.programs.quoting import CLOCK_SYSVAR
from headrace.runtime.clock import ManualClock
from headrace.solana.rpc import Rpc, RpcSettings
from headrace.testing.ledger import Account, Ledger
from headrace.testing.node_http import HttpRpc
from headrace.venues.followed import FollowedPools
from headrace.venues.pools import PoolVenue
from headrace.venues.settings import PoolVenueSettings
from tests.contracts.contexts import lent
from tests.mainnet import programs
from tests.programs.sets import Pool, answers, pool

SET: Final = pool("raydium_amm_v4/sol_usdc_58oQCh_20261002")
SYSVAR_OWNER: Final = "Sysvar1111111111111111111111111111111111111"


class ScriptedFeed:
    """A stream whose facts and covers a test sets."""

    commitment: Commitment = "processed"

    def __init__(self) -> None:
        self.sinks: list[Callable[[Sequence[News]], None]] = []
        self.followed: tuple[str, ...] = ()
        self.cover: Cover | None = None

    def attach(self, sink: Callable[[Sequence[News]], None]) -> Callable[[], None]:
        self.sinks.append(sink)
        return lambda: self.sinks.remove(sink)

    def follow(self, keys: Collection[str]) -> None:
        self.followed = tuple(keys)

    def covers(self, key: str) -> list[Cover]:
        return [self.cover] if self.cover is not None and key in self.followed else []

    def publish(self, *news: News) -> None:
        for sink in self.sinks:
            sink(news)


class Setup:
    """A venue on a node with the accounts of a set."""

    def __init__(self, node: HttpRpc, feed: ScriptedFeed, clock: ManualClock, pools: FollowedPools) -> None:
        self.node, self.feed, self.clock, self.pools = node, feed, clock, pools
        self.venue = PoolVenue(pools)

    def calls(self) -> int:
        return self.node.calls.count("getMultipleAccounts")

    def begin_slot(self, slot: int) -> None:
        self.feed.publish(SlotChanged(slot, "processed", slot - 1, "test"))


@asynccontextmanager
async def setup(*given: Pool, slot: int = 1000, **settings: Any) -> AsyncIterator[Setup]:
    node = HttpRpc(Ledger(head=slot, confirm_lag=2, root_lag=32))
    for each in given:
        put(node, each)
    await node.start()
    clock, feed = ManualClock(), ScriptedFeed()
    rpc = Rpc([node.url], clock=clock, settings=RpcSettings(), breakers=[])
    try:
        async with lent(clock) as context:
            named = {"pools": tuple(each.key for each in given), **settings}
            context = replace(context, rpc=rpc, accounts=feed)
            pools = FollowedPools(context, programs(), PoolVenueSettings(**named))
            yield Setup(node, feed, clock, pools)
            await pools.close()
    finally:
        await rpc.aclose()
        await node.stop()


def put(node: HttpRpc, given: Pool) -> None:
    """Put a set's accounts, and its time, on a node."""
    for key, account in given.accounts.items():
        node.ledger.accounts[key] = Account(account.owner, account.data, 1)
    clock = given.clock
    epoch = clock.current_epoch() or 0
    data = struct.pack("<QqQQq", clock.slot or 0, 0, epoch, epoch, clock.unix_timestamp or 0)
    node.ledger.accounts[CLOCK_SYSVAR] = Account(SYSVAR_OWNER, data, 1)


def request(mint_in: str, mint_out: str, amount: int) -> OrderRequest:
    return OrderRequest(
        user_id="u",
        said_in=mint_in,
        said_out=mint_out,
        token_in=Token(mint_in),
        token_out=Token(mint_out),
        amount=BaseUnits(amount),
        slippage_bps=Bps(50),
    )


SOL_TO_USDC: Final = request(WSOL_MINT, USDC_MINT, 1_500_000_000)
EXPECTED: Final = SET.quote(WSOL_MINT, 1_500_000_000).amount_out


REFUSED: Final = {
    ("raydium_clmm/stock_usdc_49iMat_20261002", "Xsc9qvGR1efVDFGLrVsmkzv3qi45LTBjeUKSPmx9qEh", 10**12),
    ("pump/curve_J7b61t_20261004", WSOL_MINT, 500_000_000),
    ("pump/curve_J7b61t_20261004", WSOL_MINT, 3_000_000_000),
}
"""Amounts that leave the arrays around the price, which alone are read, or buy more than a curve has left."""


@pytest.mark.parametrize("name", sorted({answer.name for answer in answers()}))
async def test_quotes_from_a_node_equal_the_recorded_answers(name: str) -> None:
    given = pool(name)
    async with setup(given) as at:
        for answer in answers():
            if (
                answer.name != name
                or answer.exact_out
                or not answer.expected
                or (name, answer.mint, answer.amount) in REFUSED
            ):
                continue
            one, other = given.mints
            quote = await at.venue.quote(request(answer.mint, other if answer.mint == one else one, answer.amount))
            assert (quote.amount_in, quote.amount_out, quote.slot) == (answer.amount, answer.expected, 1000)
        assert at.calls() <= 5


@pytest.mark.parametrize(("name", "mint", "amount"), sorted(REFUSED))
async def test_amounts_that_a_pool_does_not_take_whole_have_no_quote(name: str, mint: str, amount: int) -> None:
    given = pool(name)
    one, other = given.mints
    async with setup(given) as at:
        with pytest.raises(TransientError):
            await at.venue.quote(request(mint, other if mint == one else one, amount))


async def quoted(at: Setup) -> Quote:
    return await at.venue.quote(SOL_TO_USDC)


async def test_within_the_age_an_answer_is_quoted_again_and_then_fetched_anew() -> None:
    async with setup(SET, max_slots_behind=5) as at:
        first = await quoted(at)
        assert (first.amount_out, first.slot) == (EXPECTED, 1000)
        calls = at.calls()
        await at.clock.advance(1.9)
        assert await quoted(at) == first
        assert at.calls() == calls
        at.node.ledger.advance()
        await at.clock.advance(0.2)
        assert (await quoted(at)).slot == 1001
        assert at.calls() == calls + 1, "one call for all accounts"


async def test_accounts_that_the_stream_covers_are_not_fetched_again() -> None:
    async with setup(SET) as at:
        at.begin_slot(1000)
        await quoted(at)
        assert set(at.feed.followed) >= {SET.key, CLOCK_SYSVAR}
        at.feed.cover = Cover(1001, 1004)
        at.begin_slot(1005)
        calls = at.calls()
        assert (await quoted(at)).slot == 1004
        assert at.calls() == calls
        at.feed.cover = Cover(1007, 1009)  # another connection, which misses 1005 and 1006
        at.begin_slot(1010)
        for _ in range(10):
            at.node.ledger.advance()
        assert (await quoted(at)).slot == 1010
        assert at.calls() == calls + 1


async def test_the_revision_changes_with_slots_and_with_corrections_of_past_slots_only() -> None:
    async with setup(SET) as at:
        at.begin_slot(1000)
        await quoted(at)
        first = at.venue.revision()
        at.begin_slot(1000)
        at.feed.publish(GapDeclared(Gap("g", 990, 991, "open", "closed"), "logs:x"))
        assert at.venue.revision() == first
        changes: list[News] = [
            SlotChanged(1001, "processed", 1000, "test"),
            Dead(1001, "fork"),
            GapDeclared(Gap("g", 1002, 1003, "open", "closed"), f"account:{SET.key}"),
            Restarted(),
        ]
        seen = {first}
        for change in changes:
            at.feed.publish(change)
            seen.add(at.venue.revision())
        assert len(seen) == 5


async def test_without_slots_the_revision_changes_when_an_answer_is_too_old() -> None:
    async with setup(SET, max_slots_behind=5) as at:
        first = at.venue.revision()
        await at.clock.advance(2.0)
        assert at.venue.revision() != first


async def test_a_node_that_is_too_far_behind_gives_no_quote() -> None:
    async with setup(SET, max_slots_behind=5) as at:
        at.begin_slot(1005)
        assert (await quoted(at)).slot == 1000
        at.begin_slot(1006)
        with pytest.raises(TransientError):
            await quoted(at)


async def test_idle_pools_are_released_and_followed_accounts_are_bounded() -> None:
    async with setup(SET, idle_s=10.0) as at:
        await quoted(at)
        assert at.feed.followed
        await at.clock.advance(9)
        at.begin_slot(1001)
        assert at.feed.followed
        await at.clock.advance(2)
        at.begin_slot(1002)
        assert at.feed.followed == ()
    async with setup(SET, accounts_max=3) as at:
        assert (await quoted(at)).amount_out == EXPECTED
        assert len(at.feed.followed) <= 3


async def test_a_pair_without_pools_has_no_quote_and_is_not_asked_for_again_at_once() -> None:
    async with setup(SET) as at:
        unknown = request(WSOL_MINT, SET.key, 10)
        for _ in range(2):
            with pytest.raises(TransientError):
                await at.venue.quote(unknown)
        calls = at.calls()
        with pytest.raises(TransientError):
            await at.venue.quote(unknown)
        assert at.calls() == calls


async def test_a_node_that_fails_gives_no_quote_and_later_one() -> None:
    async with setup(SET) as at:
        at.node.faults.status = 500
        with pytest.raises(TransientError):
            await quoted(at)
        at.node.faults.status = 200
        assert (await quoted(at)).amount_out == EXPECTED


@pytest.mark.parametrize("spoiled", [b"", b"\x00" * 10, b"\xff" * 752])
@pytest.mark.parametrize("owner", [None, "11111111111111111111111111111111"])
async def test_an_account_of_other_bytes_or_another_program_gives_no_quote(spoiled: bytes, owner: str | None) -> None:
    for key in (SET.key, SET.accounts[SET.key].fields["token_pc"]):
        async with setup(SET) as at:
            at.node.ledger.accounts[key] = Account(owner or SET.accounts[key].owner, spoiled, 1)
            with pytest.raises(TransientError):
                await quoted(at)


async def test_a_curve_is_found_by_its_mint_alone() -> None:
    given = pool("pump/curve_8d4zoL_20261004")
    async with setup(given, pools=()) as at:
        coin = given.mints[0]
        quote = await at.venue.quote(request(WSOL_MINT, coin, 10**7))
        assert quote.amount_out == given.quote(WSOL_MINT, 10**7).amount_out
        assert quote.route[0].pool == given.key


async def test_a_missing_account_of_the_pool_gives_no_quote() -> None:
    async with setup(SET) as at:
        del at.node.ledger.accounts[SET.accounts[SET.key].fields["token_pc"]]
        with pytest.raises(TransientError):
            await quoted(at)


async def test_a_frozen_vault_gives_no_quote() -> None:
    key = SET.accounts[SET.key].fields["token_pc"]
    data = SET.accounts[key].data
    async with setup(SET) as at:
        at.node.ledger.accounts[key] = Account(SET.accounts[key].owner, data[:108] + b"\x02" + data[109:], 1)
        with pytest.raises(TransientError):
            await quoted(at)


async def test_a_mint_that_no_pool_trades_has_no_quote_beside_pools_that_quote() -> None:
    other = pool("raydium_cpmm/sol_usdc_7JuwJu_202604")
    async with setup(SET, other) as at:
        assert (await quoted(at)).amount_out >= EXPECTED
        with pytest.raises(TransientError):
            await at.venue.quote(request(WSOL_MINT, other.key, 10))


async def test_an_account_of_a_gap_is_fetched_again() -> None:
    async with setup(SET) as at:
        at.begin_slot(1000)
        await quoted(at)
        at.feed.cover = Cover(1001, 1004)
        at.begin_slot(1005)
        await quoted(at)
        calls = at.calls()
        at.feed.publish(GapDeclared(Gap("g", 1002, 1003, "open", "closed"), "logs:x"))
        await quoted(at)
        assert at.calls() == calls
        at.feed.publish(GapDeclared(Gap("g", 1002, 1003, "open", "closed"), f"account:{SET.key}"))
        for _ in range(5):
            at.node.ledger.advance()
        assert (await quoted(at)).amount_out == EXPECTED
        assert at.calls() > calls


async def test_a_pool_whose_account_comes_on_the_stream_is_quoted() -> None:
    given = SET.accounts[SET.key]
    update = AccountUpdate(
        source="t",
        feed="f",
        received_ns=1,
        slot=1000,
        pubkey=SET.key,
        owner=given.owner,
        lamports=1,
        data=given.data,
    )
    origin = Origin(1000, None, "t", "f", "processed")
    async with setup(SET, pools=()) as at:
        with pytest.raises(TransientError):
            await quoted(at)
        at.feed.publish(AccountChanged("id", origin, update, given.program, given.name, b"{}", {}))
        assert (await quoted(at)).amount_out == EXPECTED


async def test_a_newest_slot_that_is_taken_back_does_not_make_states_old() -> None:
    async with setup(SET) as at:
        at.begin_slot(10**9)
        with pytest.raises(TransientError):
            await quoted(at)
        at.begin_slot(1001)
        at.begin_slot(999)
        assert (await quoted(at)).amount_out == EXPECTED
