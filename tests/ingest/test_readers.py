"""Readers of swaps: they never raise, never guess, and know on whose behalf a swap was made."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.decoders.events import events_of
from headrace.decoders.instructions import instructions_of
from headrace.decoders.registry import Programs
from headrace.ingest.known import Mints, Pools
from headrace.ingest.trades import on_behalf, trade_of
from headrace.model.events import DecodedEvent
from headrace.model.keys import b58encode
from headrace.model.updates import Instruction, TokenBalance, TransactionUpdate
from headrace.programs import SHIPPED
from headrace.programs.meanings import Scene
from headrace.programs.register import EVENTS
from tests.ingest.mainnet import READERS, landed, logs_view
from tests.ingest.test_known_trades import ids, messages, new_pipeline, whole

PROGRAMS = Programs.load()
KEYS = st.binary(min_size=32, max_size=32).map(b58encode)


def names_of(program: str) -> list[str]:
    """Account names of all instructions of the program."""
    found: list[str] = []
    for path in (SHIPPED / program / "idl.json", SHIPPED / program / "supplement.json"):
        if path.is_file():
            for instruction in json.loads(path.read_text()).get("instructions", []):
                found += [each["name"] for each in instruction["accounts"] if "name" in each]
    return [*dict.fromkeys(found), *(f"remaining_{n}" for n in range(8))]


def real_events() -> Iterator[tuple[DecodedEvent, Scene]]:
    """The swap and pool events of the material, each with what its transaction adds."""
    for _, update in landed():
        accounts = {each.path: each.accounts for each in instructions_of(update, PROGRAMS)}
        mints = {held.account: held.mint for held in update.post_token_balances}
        for event in events_of(update, PROGRAMS, failed=True):
            yield event, Scene(accounts.get(event.path, {}), mints)


REAL: dict[tuple[str, str], list[tuple[DecodedEvent, Scene]]] = {}
for each in real_events():
    REAL.setdefault((each[0].program, each[0].name), []).append(each)


@st.composite
def spoiled(draw: st.DrawFn) -> tuple[DecodedEvent, Scene]:
    """A real event of which fields and accounts are missing, None, or of another kind."""
    kind = draw(st.sampled_from(sorted(REAL)))
    event, scene = REAL[kind][draw(st.integers(0, len(REAL[kind]) - 1))]
    data = dict(event.data)
    for name in draw(st.lists(st.sampled_from(sorted(data)), max_size=len(data))) if data else ():
        match draw(st.sampled_from(["none", "none", "gone", "inner"])):
            case "none":
                data[name] = None
            case "gone":
                data.pop(name, None)
            case "inner" if isinstance(data.get(name), dict) and data[name]:
                inner = dict(data[name])
                inner.pop(draw(st.sampled_from(sorted(inner))))
                data[name] = inner
    accounts = {name: key for name, key in scene.accounts.items() if draw(st.booleans())}
    mints = scene.mints if draw(st.booleans()) else {}
    return msgspec.structs.replace(event, data=data), Scene(accounts, mints)


@given(spoiled())
def test_readers_never_raise_for_what_is_missing(given_: tuple[DecodedEvent, Scene]) -> None:
    event, scene = given_
    pools, mints = Pools(), Mints()
    meaning = EVENTS.get((event.program, event.name))
    if meaning is None:
        return
    pools.learn_event(event, meaning)
    swap = None if meaning.trade is None else meaning.trade(event.data, scene)
    trade = None if swap is None else trade_of(swap, scene, pools, swap.user)
    token = None if meaning.token is None else meaning.token(event.data, scene)
    mints.learn_event(event, meaning, trade.mint if trade is not None else None if token is None else token.mint)
    if trade is not None:
        assert trade.base_amount is not None
        assert trade.quote_amount is not None


@given(st.sampled_from(sorted(READERS)), st.data())
def test_readers_never_raise_for_any_accounts(key: tuple[str, str], data: st.DataObject) -> None:
    """Of every swap event, with none of its fields, or all as None, and any accounts of any of its instructions."""
    program, name = key
    names = PROGRAMS.by_name[program].events[name].names if data.draw(st.booleans()) else ()
    event = DecodedEvent(
        program=program, program_id="P", name=name, via="log", path=(0,), ordinal=0, data=dict.fromkeys(names)
    )
    accounts = data.draw(st.dictionaries(st.sampled_from(names_of(program)), KEYS))
    swap = READERS[key](event.data, Scene(accounts, data.draw(st.dictionaries(KEYS, KEYS, max_size=2))))
    assert swap is None or trade_of(swap, Scene(), Pools(), None) is None, "without amounts there is no trade"


@pytest.mark.parametrize("key", sorted(READERS))
def test_every_reader_reads_an_event_that_its_program_has(key: tuple[str, str]) -> None:
    program, name = key
    assert name in PROGRAMS.by_name[program].events


def test_a_repeated_event_has_a_reader_of_its_own() -> None:
    """Programs write the newer one alone as well."""
    repeats = {key: facts.repeats for key, facts in EVENTS.items() if facts.repeats is not None}
    assert len(repeats) == 4
    for (program, newer), older in repeats.items():
        assert (program, newer) in READERS
        assert (program, older) in READERS


# On whose behalf


def routed(signers: int, *heights: int | None, owners: tuple[str, ...] = ()) -> TransactionUpdate:
    """Payer, user and helper; a router at the top, which calls a vault, which calls the pool with its own authority."""
    accounts = (("Payer", "User"), ("Vault", "Helper"), ("Pool", "Authority"))
    paths = ((0,), (0, 0), (0, 1))
    instructions = tuple(
        Instruction(program_id=f"P{n}", accounts=accounts[n], data=b"", path=paths[n], stack_height=heights[n])
        for n in range(3)
    )
    held = tuple(TokenBalance(account=f"A{o}", mint="M", owner=o, amount=1, decimals=0) for o in owners)
    return TransactionUpdate(
        source="s", feed="f", received_ns=0, slot=1, signature="x", err=None, version=0, logs=None,
        account_keys=("Payer", "User", "Helper", "Vault", "Pool", "Authority"), instructions=instructions,
        signers=signers, post_token_balances=held,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("update", "named", "right"),
    [
        (routed(2, 1, 2, 3), "User", ("User", None)),
        (routed(1, 1, 2, 3), "Authority", ("Payer", "Authority")),
        (routed(2, 1, 2, 3, owners=("User",)), "Authority", ("User", "Authority")),
        (routed(2, 1, 2, 3), "Authority", ("Payer", "Authority")),
        (routed(3, 1, 2, 3), "Authority", ("Helper", "Authority")),
        (routed(3, 1, 2, 2), "Authority", ("Payer", "Authority")),
        (routed(3, 1, None, None, owners=("User",)), "Authority", ("User", "Authority")),
        (routed(2, 1, 2, 3), None, ("Payer", None)),
        (routed(0, 1, 2, 3), "Authority", ("Authority", None)),
    ],
)
def test_the_user_is_the_signer_behind_a_router(
    update: TransactionUpdate, named: str | None, right: tuple[str | None, str | None]
) -> None:
    assert on_behalf(named, (0, 1), update) == right


# What only the second view knows


def test_a_token_that_only_the_whole_transaction_names_is_published_after_its_log_lines() -> None:
    """LaunchLab's PoolCreateEvent does not name its mint."""
    (update,) = (u for _, u in landed() if u.err is None and "54y4DV6shhwvojpRCCqwvgRTPd45UGrCEghpsa9pBj7F" in str(u))
    alone, both = messages(new_pipeline(), update), messages(new_pipeline(), logs_view(update), update)
    assert ids(both) == ids(alone)
    assert [topic for topic, _ in both if topic == "token_updates"] == ["token_updates"]


def test_ids_stay_when_the_log_counts_instructions_otherwise() -> None:
    """A precompile runs without a log line, so the log's path is too low by one: the first id holds on all topics."""
    update = whole("reported/3_pumpswap_exact_in_gross.json")
    silent = Instruction(
        program_id="Ed25519SigVerify111111111111111111111111111", accounts=(), data=b"\0", path=(0,), stack_height=1
    )
    moved = tuple(
        msgspec.structs.replace(each, path=(each.path[0] + 1, *each.path[1:])) for each in update.instructions
    )
    shifted = msgspec.structs.replace(update, instructions=(silent, *moved))
    both = messages(new_pipeline(), logs_view(update), shifted)
    by_topic = {topic: body["event_id"] for topic, body in both if body["data"]["type"] in ("Trade", "Event")}
    assert len(by_topic) == 3
    assert len(set(by_topic.values())) == 1


def test_market_numbers_count_a_trade_once_that_the_second_view_named() -> None:
    update = whole("reported/3_pumpswap_exact_in_gross.json")
    both = messages(new_pipeline(), logs_view(update), update, logs_view(update))
    on_mint: list[Any] = [body for topic, body in both if topic.startswith("trades:") and topic != "trades:pump_amm"]
    assert len(on_mint) == 1


# What readers ask for


class Asked(dict[str, Any]):
    """Fields that remember which of them were asked for."""

    def __init__(self, fields: Mapping[str, Any]) -> None:
        super().__init__(fields)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return super().__getitem__(name)


@pytest.mark.parametrize(
    "key", sorted(key for key, meaning in EVENTS.items() if key in REAL and meaning.reads is not None)
)
def test_readers_ask_for_no_field_that_their_facts_do_not_name(key: tuple[str, str]) -> None:
    """Of real events whole, without any field, and without each one."""
    meaning = EVENTS[key]
    for event, scene in REAL[key][:3]:
        whole = event.data
        for fields in (whole, {}, *({n: v for n, v in whole.items() if n != left_out} for left_out in whole)):
            asked = Asked(fields)
            if meaning.trade is not None:
                meaning.trade(asked, scene)
            if meaning.token is not None:
                meaning.token(asked, scene)
            if meaning.mints is not None:
                list(meaning.mints(asked, "M"))
            assert {name for name in asked.names if not meaning.wants(name)} == set()
