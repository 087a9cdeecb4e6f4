"""Real accounts and events decode to the last byte, with the values that independent decoders read."""

import base64
import json
import struct
from collections import Counter
from pathlib import Path
from typing import Any

import borsh_construct as borsh
import pytest
from construct import Bytes
from solders.pubkey import Pubkey

from headrace.decoders.registry import Programs

DATA = Path(__file__).parent.parent / "data"
PUMP = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
AMM = "pAMMBay6oceH9fJKBRHGP5D4bD4sWpmSwMn52FMfXEA"
EVENTS: list[dict[str, Any]] = json.loads((DATA / "events" / "events.json").read_text())


@pytest.fixture(scope="module")
def programs() -> Programs:
    return Programs.load()


def accounts(path: str = "*/*.json") -> list[tuple[str, str, bytes]]:
    """(pubkey, owner, data) of the account sets."""
    found = []
    for file in sorted((DATA / "mainnet" / "accounts").glob(path)):
        for entry in json.loads(file.read_text())["accounts"]:
            account = entry["account"]
            found.append((entry["pubkey"], account["owner"], base64.b64decode(account["data"][0])))
    return found


def notifications() -> list[tuple[str, str, bytes]]:
    text = (DATA / "mainnet" / "pubsub" / "programNotification.projected.jsonl").read_text()
    values = [json.loads(line)["params"]["result"]["value"] for line in text.splitlines()]
    return [(v["pubkey"], v["account"]["owner"], base64.b64decode(v["account"]["data"][0])) for v in values]


def test_every_account_decodes_to_the_last_byte(programs: Programs) -> None:
    seen: Counter[str] = Counter()
    for pubkey, owner, data in accounts() + notifications():
        if owner not in programs.by_id:
            assert programs.account(owner, data) is None
            continue
        account = programs.account(owner, data)
        assert account is not None, pubkey
        assert account.leftover == 0, (pubkey, account.name, account.leftover)
        layout = programs.by_id[owner].accounts[account.name]
        assert json.loads(layout.encode_json(account.data)).keys() == account.data.keys()
        seen[f"{account.program}.{account.name}"] += 1
    assert seen == {
        "meteora_cp_amm.Pool": 4,
        "meteora_dlmm.BinArray": 34,
        "meteora_dlmm.BinArrayBitmapExtension": 2,
        "meteora_dlmm.LbPair": 2,
        "meteora_dlmm.Oracle": 2,
        "pump.BondingCurve": 4,
        "pump.Global": 4,
        "pump_amm.GlobalConfig": 4,
        "pump_amm.Pool": 4,
        "pump_fees.FeeConfig": 4,
        "pump_fees.SharingConfig": 1,
        "raydium_amm_v4.AmmInfo": 2,
        "raydium_clmm.AmmConfig": 2,
        "raydium_clmm.ObservationState": 2,
        "raydium_clmm.PoolState": 2,
        "raydium_clmm.TickArrayBitmapExtension": 2,
        "raydium_clmm.TickArrayState": 40,
        "raydium_cpmm.AmmConfig": 1,
        "raydium_cpmm.ObservationState": 1,
        "raydium_cpmm.PoolState": 1,
        "raydium_launchlab.GlobalConfig": 2,
        "raydium_launchlab.PlatformConfig": 2,
        "raydium_launchlab.PoolState": 2,
        "spl_token.Account": 11,
        "spl_token.Mint": 12,
        "spl_token_2022.Account": 5,
        "spl_token_2022.Mint": 9,
    }


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: f"{e['program']}.{e['event']}.{e['bytes']}")
def test_every_event_decodes_to_the_last_byte(programs: Programs, event: dict[str, Any]) -> None:
    payload = base64.b64decode(event["payload"])
    part = programs.by_name[event["program"]].event(payload)
    assert part is not None
    assert (part.name, part.leftover) == (event["event"], 0)
    values = list(part.data.values())
    missing = [value is None for value in values]
    assert missing == sorted(missing), "only trailing fields of an older layout are missing"
    assert json.loads(part.layout.encode_json(part.data)).keys() == part.data.keys()


KEY = Bytes(32)
SHAREHOLDER = borsh.CStruct("address" / KEY, "share_bps" / borsh.U16)
TRADE_EVENT = borsh.CStruct(
    *("mint" / KEY, "sol_amount" / borsh.U64, "token_amount" / borsh.U64, "is_buy" / borsh.Bool, "user" / KEY),
    *("timestamp" / borsh.I64, "virtual_sol_reserves" / borsh.U64, "virtual_token_reserves" / borsh.U64),
    *("real_sol_reserves" / borsh.U64, "real_token_reserves" / borsh.U64, "fee_recipient" / KEY),
    *("fee_basis_points" / borsh.U64, "fee" / borsh.U64, "creator" / KEY, "creator_fee_basis_points" / borsh.U64),
    *("creator_fee" / borsh.U64, "track_volume" / borsh.Bool, "total_unclaimed_tokens" / borsh.U64),
    *("total_claimed_tokens" / borsh.U64, "current_sol_volume" / borsh.U64, "last_update_timestamp" / borsh.I64),
    *("ix_name" / borsh.String, "mayhem_mode" / borsh.Bool, "cashback_fee_basis_points" / borsh.U64),
    *("cashback" / borsh.U64, "buyback_fee_basis_points" / borsh.U64, "buyback_fee" / borsh.U64),
    *("shareholders" / borsh.Vec(SHAREHOLDER), "quote_mint" / KEY, "quote_amount" / borsh.U64),
    *("virtual_quote_reserves" / borsh.U64, "real_quote_reserves" / borsh.U64, "holder_rewards_bps" / borsh.U64),
    *("holder_rewards" / borsh.U64, "creator_fee_unclaimed" / borsh.U64),
)
BONDING_CURVE = borsh.CStruct(
    *("virtual_token_reserves" / borsh.U64, "virtual_quote_reserves" / borsh.U64, "real_token_reserves" / borsh.U64),
    *("real_quote_reserves" / borsh.U64, "token_total_supply" / borsh.U64, "complete" / borsh.Bool, "creator" / KEY),
    *(
        "is_mayhem_mode" / borsh.Bool,
        "is_cashback_coin" / borsh.Bool,
        "quote_mint" / KEY,
        "creator_fee_bps" / borsh.U64,
    ),
    *("can_edit_creator_fee" / borsh.Bool, "is_holder_reward" / borsh.Bool, "creator_fee" / borsh.U64),
    *("protocol_fees" / borsh.U64, "depth" / borsh.U8),
)


def plain(value: Any) -> Any:
    """A construct value as we show it."""
    match value:
        case bytes():
            return str(Pubkey(value))
        case dict():
            return {name: plain(item) for name, item in value.items() if name != "_io"}
        case list():
            return [plain(item) for item in value]
    return value


def test_trade_event_reads_as_borsh_construct_reads_it(programs: Programs) -> None:
    compared = 0
    for event in EVENTS:
        payload = base64.b64decode(event["payload"])
        if (event["program"], event["event"]) == ("pump", "TradeEvent") and len(payload) >= 382:
            part = programs.event(PUMP, payload)
            assert part is not None
            theirs = plain(TRADE_EVENT.parse(payload[8:]))
            assert {name: part.data[name] for name in theirs} == theirs
            compared += 1
    assert compared == 7


def test_bonding_curve_reads_as_borsh_construct_reads_it(programs: Programs) -> None:
    curves = [data for _, owner, data in accounts("pump/*.json") if owner == PUMP and len(data) == 151]
    assert len(curves) == 2
    for data in curves:
        account = programs.account(PUMP, data)
        assert account is not None
        theirs = plain(BONDING_CURVE.parse(data[8:]))
        assert {name: account.data[name] for name in theirs} == theirs
        assert account.data["virtual_sol_reserves"] == account.data["virtual_quote_reserves"]


CURVE_GREW = {
    49: "complete",
    81: "creator",
    125: "is_holder_reward",
    137: "creator_fee",
    151: "initial_virtual_quote_reserves",
    166: "post_complete_quote_in",
    300: "post_complete_quote_in",
}


@pytest.mark.parametrize(("length", "last"), CURVE_GREW.items())
def test_bonding_curves_of_every_length(programs: Programs, length: int, last: str) -> None:
    data = next(data for _, owner, data in accounts("pump/*.json") if owner == PUMP and len(data) == 151)
    account = programs.account(PUMP, (data + bytes(200))[:length])
    assert account is not None
    present = [name for name, value in account.data.items() if value is not None and "_sol_" not in name]
    assert present[-1] == last


def test_trade_events_of_every_length(programs: Programs) -> None:
    longest = max((base64.b64decode(e["payload"]) for e in EVENTS if e["event"] == "TradeEvent"), key=len)
    whole = programs.event(PUMP, longest)
    assert whole is not None
    for length in range(8, len(longest)):
        part = programs.event(PUMP, longest[:length])
        assert part is not None
        assert all(value is None or value == whole.data[name] for name, value in part.data.items())
        json.loads(part.layout.encode_json(part.data))
    last_seen = {129: "real_token_reserves", 225: "creator_fee"}
    for length, name in last_seen.items():
        part = programs.event(PUMP, longest[:length])
        assert part is not None and part.leftover == 0
        assert [n for n, value in part.data.items() if value is not None][-1] == name


def test_spare_zero_bytes_of_an_account_are_no_leftover_and_anything_else_is(programs: Programs) -> None:
    data = next(data for _, owner, data in accounts("pumpswap/*.json") if owner == AMM and len(data) == 301)
    for tail, leftover in ((bytes(40), 0), (bytes(10) + b"\1" + bytes(9), 11)):
        account = programs.account(AMM, data + tail)
        assert account is not None
        assert (account.name, account.leftover > 0) == ("Pool", leftover > 0)


def test_dlmm_pair_by_hand(programs: Programs) -> None:
    data = next(data for _, _, data in accounts("meteora_dlmm/*.json") if len(data) == 904)
    pair = programs.account("LBUZKhRxPF3XUpBCjp4YzTKgLccjZhTSDM9YuVaPwxo", data)
    assert pair is not None
    assert pair.data["active_id"] == struct.unpack_from("<i", data, 76)[0]
    assert pair.data["bin_step"] == struct.unpack_from("<H", data, 80)[0]
    assert pair.data["token_x_mint"] == str(Pubkey(data[88:120]))
    assert pair.data["reserve_y"] == str(Pubkey(data[184:216]))
    assert pair.data["oracle"] == str(Pubkey(data[552:584]))
    assert pair.data["v_parameters"]["last_update_timestamp"] == struct.unpack_from("<q", data, 56)[0]


def test_amm_v4_pool_by_hand(programs: Programs) -> None:
    owner = "675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8"
    data = next(data for _, _, data in accounts("raydium_amm_v4/*.json") if len(data) == 752)
    pool = programs.account(owner, data)
    assert pool is not None and pool.name == "AmmInfo"
    assert pool.data["out_put"]["need_take_pnl_coin"] == struct.unpack_from("<Q", data, 192)[0]
    for name, at in {"token_coin": 336, "token_pc": 368, "coin_mint": 400, "pc_mint": 432, "market": 528}.items():
        assert pool.data[name] == str(Pubkey(data[at : at + 32]))


def test_clmm_tick_array_by_hand(programs: Programs) -> None:
    owner = "CAMMCzo5YL8w4VFF8KVHrK22GGUsp5VTaW7grrKgrWqK"
    for _, _, data in [entry for entry in accounts("raydium_clmm/*.json") if len(entry[2]) == 10_240]:
        array = programs.account(owner, data)
        assert array is not None
        start = struct.unpack_from("<i", data, 40)[0]
        assert array.data["start_tick_index"] == start
        ticks = array.data["ticks"]
        assert len(ticks) == 60
        assert ticks[7]["tick"] == struct.unpack_from("<i", data, 44 + 7 * 168)[0]
        assert ticks[7]["liquidity_net"] == int.from_bytes(data[48 + 7 * 168 : 64 + 7 * 168], "little", signed=True)


def test_token_2022_mint_extensions(programs: Programs) -> None:
    mints = [data for _, owner, data in accounts() if owner.startswith("Tokenz") and data[165:166] == b"\1"]
    names: Counter[str] = Counter()
    for data in mints:
        mint = programs.account("TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb", data)
        assert mint is not None and mint.data["account_type"] == "mint"
        assert 166 + sum(4 + entry["length"] for entry in mint.data["extensions"]) == len(data)
        for entry in mint.data["extensions"]:
            names[entry["extension"]] += 1
            if entry["extension"] == "tokenMetadata":
                assert entry["data"]["symbol"] and entry["data"]["uri"].startswith("http")
    assert {"metadataPointer", "tokenMetadata"} <= names.keys()
