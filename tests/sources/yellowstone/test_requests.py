"""Requests of subscriptions and filters, read back with the same messages."""

from typing import Any

import pytest

from headrace.model.errors import ConfigError
from headrace.model.keys import b58decode
from headrace.sources.endpoints import no_names
from headrace.sources.subscriptions import SLOTS, ChainSubscription, parse
from headrace.sources.yellowstone.filters import FILTERS_MAX, Filters, parse_filters
from headrace.sources.yellowstone.messages import geyser
from headrace.sources.yellowstone.requests import BLOCKS_META, FORMER_MAX, Requests
from headrace.testing.ledger import made_up_key, made_up_signature

PROGRAM, MINT = made_up_key("program"), made_up_key("mint")
NONE = Filters({})


def subscription(text: str) -> ChainSubscription:
    return parse(text, no_names)


def request(*texts: str, filters: Filters = NONE, from_slot: int | None = None) -> Any:
    wanted = (SLOTS, *map(subscription, texts))
    wanted += tuple(ChainSubscription("filter", ".".join(name)) for name in filters.named)
    raw = Requests("confirmed").make(wanted, filters, from_slot)
    return geyser.SubscribeRequest.FromString(raw)


def test_every_word_has_its_filter() -> None:
    made = request(
        f"logs:{PROGRAM}",
        f"transactions:{MINT}",
        f"account:{MINT}",
        f"program:{PROGRAM}?dataSize=165&memcmp=32:{MINT}",
        f"signature:{made_up_signature(1)}",
        from_slot=77,
    )
    assert list(made.transactions["logs.1"].account_include) == [PROGRAM]
    assert made.transactions["logs.1"].HasField("vote")
    assert not made.transactions["logs.1"].vote
    assert not made.transactions["logs.1"].HasField("failed")
    assert list(made.transactions["transactions.2"].account_include) == [MINT]
    assert list(made.accounts["account.3"].account) == [MINT]
    assert list(made.accounts["program.4"].owner) == [PROGRAM]
    size, memcmp = made.accounts["program.4"].filters
    assert (size.datasize, memcmp.memcmp.offset, memcmp.memcmp.bytes) == (165, 32, b58decode(MINT))
    assert made.transactions["signature.5"].signature == made_up_signature(1)
    assert made.slots["slots.1"].interslot_updates
    assert not made.slots["slots.1"].filter_by_commitment
    assert list(made.blocks_meta) == [BLOCKS_META]
    assert (made.commitment, made.from_slot) == (geyser.CONFIRMED, 77)
    assert not request().HasField("from_slot")


def test_name_stays_with_its_subscription_and_never_means_another() -> None:
    requests = Requests("processed")
    first, second = subscription(f"logs:{PROGRAM}"), subscription(f"logs:{MINT}")
    requests.make((SLOTS, first), NONE)
    assert requests.wants("logs.1") == first
    made = geyser.SubscribeRequest.FromString(requests.make((SLOTS, second), NONE))
    assert (requests.wants("logs.1"), requests.wants("logs.2")) == (None, second)
    assert requests.knows("logs.1")
    assert list(made.slots) == ["slots.2"]
    requests.make((SLOTS, first, second), NONE)
    assert requests.wants("logs.3") == first
    assert requests.wants("slots.3") == SLOTS


def test_former_names_are_bounded() -> None:
    requests = Requests("processed")
    for number in range(FORMER_MAX + 2):
        requests.make((SLOTS, ChainSubscription("account", str(number))), NONE)
    assert not requests.knows("account.1")
    assert requests.knows(f"account.{FORMER_MAX + 2}")


WHOLE = f"""
[accounts.whales]
account = ["{MINT}"]
owner = ["{PROGRAM}"]
nonempty_txn_signature = true
filters = [
  {{ datasize = 165 }}, {{ token_account_state = true }}, {{ lamports = {{ gt = 5 }} }},
  {{ memcmp = {{ offset = 32, base64 = "AQI=" }} }},
]
[slots.all]
interslot_updates = true
[transactions.swaps]
account_include = ["{PROGRAM}"]
account_exclude = ["{MINT}"]
account_required = ["{PROGRAM}"]
vote = false
failed = true
signature = "{made_up_signature(1)}"
token_accounts = "balance_changed"
[transactions_status.votes]
vote = true
[blocks.busy]
account_include = ["{PROGRAM}"]
include_transactions = true
include_accounts = false
include_entries = true
[blocks_meta.all]
[entry.all]
[[accounts_data_slice]]
offset = 0
length = 8
[[accounts_data_slice]]
offset = 8
length = 32
"""


def test_every_filter_of_the_interface_can_be_written() -> None:
    made = request(filters=parse_filters(WHOLE))
    (whales,) = made.accounts.values()
    assert (list(whales.account), list(whales.owner), whales.nonempty_txn_signature) == ([MINT], [PROGRAM], True)
    assert [each.WhichOneof("filter") for each in whales.filters] == [
        "datasize", "token_account_state", "lamports", "memcmp",
    ]  # fmt: skip
    assert whales.filters[2].lamports.gt == 5
    assert (whales.filters[3].memcmp.offset, whales.filters[3].memcmp.bytes) == (32, b"\x01\x02")
    assert len(made.slots) == 2
    (swaps,) = made.transactions.values()
    assert list(swaps.account_exclude) == [MINT]
    assert (swaps.failed, swaps.token_accounts) == (True, geyser.TOKEN_ACCOUNTS_BALANCE_CHANGED)
    assert next(iter(made.transactions_status.values())).vote
    assert next(iter(made.blocks.values())).include_transactions
    assert len(made.blocks_meta) == 2
    assert len(made.entry) == 1
    assert [(each.offset, each.length) for each in made.accounts_data_slice] == [(0, 8), (8, 32)]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("accounts = 5", "accounts"),
        ("[", "YELLOWSTONE_FILTERS"),
        ("[account.x]", "account"),
        ("[accounts.x]", "accounts.x"),
        ("[accounts.X]\nowner = []", "accounts.X"),
        ('[accounts.x]\nowner = ["no key"]', "accounts.x.owner"),
        ('[accounts.x]\nowner = "text"', "accounts.x.owner"),
        ("[accounts.x]\nfilters = 5", "accounts.x.filters"),
        ("[accounts.x]\nfilters = [5]", "accounts.x.filters[0]"),
        ("[accounts.x]\nfilters = [{}]", "accounts.x.filters[0]"),
        ("[accounts.x]\nfilters = [{ size = 5 }]", "accounts.x.filters[0]"),
        ("[accounts.x]\nfilters = [{ datasize = -1 }]", "accounts.x.filters[0].datasize"),
        ("[accounts.x]\nfilters = [{ datasize = 18446744073709551616 }]", "accounts.x.filters[0].datasize"),
        ("[accounts.x]\nfilters = [{ datasize = true }]", "accounts.x.filters[0].datasize"),
        ("[accounts.x]\nfilters = [{ token_account_state = 1 }]", "accounts.x.filters[0].token_account_state"),
        ("[accounts.x]\nfilters = [{ lamports = { ge = 1 } }]", "accounts.x.filters[0].lamports"),
        ("[accounts.x]\nfilters = [{ lamports = { gt = 1, lt = 2 } }]", "accounts.x.filters[0].lamports"),
        ("[accounts.x]\nfilters = [{ memcmp = { offset = 1 } }]", "accounts.x.filters[0].memcmp"),
        ('[accounts.x]\nfilters = [{ memcmp = { offset = 1, base58 = "0" } }]', "accounts.x.filters[0].memcmp.base58"),
        ('[accounts.x]\nfilters = [{ memcmp = { offset = 1, base64 = "?" } }]', "accounts.x.filters[0].memcmp.base64"),
        ('[accounts.x]\nfilters = [{ memcmp = { base64 = "AQI=" } }]', "accounts.x.filters[0].memcmp.offset"),
        ("[accounts.x]\nfilters = [{datasize=1},{datasize=1},{datasize=1},{datasize=1},{datasize=1}]", "x.filters"),
        ("[accounts.x]\nnonempty_txn_signature = 1", "accounts.x.nonempty_txn_signature"),
        ("[slots.x]\nfilter = true", "slots.x.filter"),
        ("[slots.x]\ninterslot_updates = 0", "slots.x.interslot_updates"),
        ('[transactions.x]\nvote = "no"', "transactions.x.vote"),
        ('[transactions.x]\nsignature = "no"', "transactions.x.signature"),
        ('[transactions.x]\ntoken_accounts = "some"', "transactions.x.token_accounts"),
        ("[blocks.x]\ninclude_transactions = 1", "blocks.x.include_transactions"),
        ("[blocks_meta.x]\nanything = 1", "blocks_meta.x.anything"),
        ("[entry]\nx = 1", "entry.x"),
        ("accounts_data_slice = 5", "accounts_data_slice"),
        ("[[accounts_data_slice]]\noffset = 5", "accounts_data_slice.length"),
        (
            "[[accounts_data_slice]]\noffset = 0\nlength = 9\n[[accounts_data_slice]]\noffset = 8\nlength = 1",
            "accounts_data_slice",
        ),
    ],
)
def test_wrong_filter_is_one_error_that_names_the_place(text: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_filters(text)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_many_filters_are_refused() -> None:
    text = "\n".join(f"[entry.x{number}]" for number in range(FILTERS_MAX + 1))
    with pytest.raises(ConfigError, match="65 filters"):
        parse_filters(text)


def test_memcmp_of_too_many_bytes_is_refused() -> None:
    text = f'[accounts.x]\nfilters = [{{ memcmp = {{ offset = 1, base64 = "{"A" * 4 * 43}" }} }}]'
    with pytest.raises(ConfigError, match="129 bytes"):
        parse_filters(text)
