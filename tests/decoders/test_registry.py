"""Programs are found by id and discriminator, drift is counted, and an IDL file in a folder is a program."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from headrace.decoders.idl import IDL_BYTES_MAX, discriminator
from headrace.decoders.registry import Counts, Programs
from headrace.model.errors import ConfigError
from headrace.programs import SHIPPED

COMMCOIN = "6YuHH4kveCrEeEtVKM2nh18zU4XWFpEWqV8f5GbhdnzX"
AMM_V4 = "675kPX9MHTjS2zt1qfr1NYHuzeLXfQM9H24wFSUt1Mp8"
TOKEN = "TokenkegQfeZyiNwAJbNbGKPFXCWuBvf9Ss623VQ5DA"
TOKEN_2022 = "TokenzQdBNbLqP5VEhdkAS6EPFLC1PHnBqCXEpPxuEb"


def small_idl(**more: Any) -> dict[str, Any]:
    fields = [{"name": "amount", "type": "u64"}]
    return {
        "version": "0.1.0",
        "name": "coin",
        "instructions": [{"name": "payIn", "accounts": [{"name": "user"}, {"name": "vault"}], "args": fields}],
        "events": [{"name": "Paid", "fields": fields}],
        **more,
    }


def write(folder: Path, name: str, document: dict[str, Any]) -> Path:
    path = folder / name
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(scope="module")
def programs() -> Programs:
    return Programs.load()


def test_the_shipped_programs_have_the_event_authorities_that_are_known(programs: Programs) -> None:
    known = {
        "pump": "Ce6TQqeHC9p8KetsN6JsjHK7UTZk7nasjjnr7XxXp9F1",
        "pump_amm": "GS4CU59F31iL7aR2Q8zVS8DRrcRnXX1yjQ66TqNVQnaR",
        "raydium_launchlab": "2DPAtwB8L12vrMRExbLuyGnC7n2J5LNoZQSejeQGpwkr",
        "meteora_dlmm": "D1ZN9Wj1fRSUQfCjhvnu1hqDMT7hzjzBBpi12nVniYD6",
        "meteora_cp_amm": "3rmHSu74h1ZcmAisVcWerTCiRDQbUrBKmcwptYGjHfet",
        "meteora_dbc": "8Ks12pbrD6PXxfty1hVQiE9sc289zgU1zHkvXhrSdriF",
        "jupiter_v6": "D8cy77BBepLMngZx6ZukaTff5hCt1HrWyKk3Hnd9oitf",
    }
    assert {name: programs.by_name[name].event_authority for name in known} == known


def test_every_shipped_layout_compiles(programs: Programs) -> None:
    for program in programs.by_id.values():
        for kind in (program.events, program.accounts, program.instructions):
            for layout in kind.values():
                fields, _ = layout.decode(bytes(20_000))
                json.loads(layout.encode_json(fields))


def test_the_same_discriminator_means_its_own_event_in_each_program(programs: Programs) -> None:
    trade = bytes.fromhex("bddb7fd34ee661ee") + bytes(400)
    names = {}
    for name in ("pump", "raydium_launchlab"):
        part = programs.event(programs.by_name[name].program_id, trade)
        assert part is not None
        names[part.program] = next(iter(part.data))
    assert names == {"pump": "mint", "raydium_launchlab": "pool_state"}


def test_what_one_registry_counts_another_does_not() -> None:
    counting, other = Programs.load(), Programs.load()
    pump = counting.by_name["pump"]
    pump.event(bytes(8))
    pump.event(bytes.fromhex("bddb7fd34ee661ee"))
    assert pump.drift()["event"] == Counts(decoded=1, unknown=1, short=1)
    assert other.by_name["pump"].drift()["event"] == Counts()


def test_drift_is_counted(tmp_path: Path) -> None:
    write(tmp_path, "commcoin.json", small_idl())
    programs = Programs.load(tmp_path, addresses={"commcoin": COMMCOIN})
    paid = programs.by_id[COMMCOIN]
    mark = discriminator("event", "Paid")
    assert paid.event(mark + bytes(8)) is not None
    part = paid.event(mark + bytes(11))
    assert part is not None and part.leftover == 3
    part = paid.event(mark + bytes(7))
    assert part is not None and part.data == {"amount": None}
    assert paid.event(b"whatever") is None
    assert paid.event(b"") is None
    drift = {(name, kind): counts for name, kind, counts in programs.drift}
    assert drift["commcoin", "event"] == Counts(decoded=3, unknown=2, longer=2, leftover_bytes=10, short=1)
    assert drift["commcoin", "account"] == Counts()


def test_unknown_programs_give_none_and_are_not_counted(programs: Programs) -> None:
    stranger = "ComputeBudget111111111111111111111111111111"
    assert programs.event(stranger, bytes(16)) is None
    assert programs.instruction(stranger, bytes(16)) is None
    assert programs.account(stranger, bytes(16)) is None
    assert programs.name_of(stranger) == stranger
    assert programs.name_of(TOKEN) == "spl_token"


def test_an_instruction_names_its_accounts(programs: Programs) -> None:
    data = bytes.fromhex("07051dc4f5176550") + bytes(16)
    found = programs.by_name["pump"].instruction_names(data)
    assert found is not None
    assert found.name == "buy_v3"
    names = found.of_accounts(19)
    assert (names[5], names[16:]) == ("bonding_curve", ("program",))
    assert found.of_accounts(2) == names


def test_amm_v4_names_accounts_by_how_many_there_are(programs: Programs) -> None:
    found = programs.by_id[AMM_V4].instruction_names(b"\x09" + bytes(16))
    assert found is not None and found.name == "swap_base_in"
    assert found.of_accounts(18)[4] == "amm_target_orders"
    assert found.of_accounts(17)[4] == "pool_coin_token_account"


def test_ray_log(programs: Programs) -> None:
    swap = bytes([3]) + b"".join(n.to_bytes(8, "little") for n in (10_000, 80_964, 1, 5, 7, 9, 83_067))
    part = programs.event(AMM_V4, swap)
    assert part is not None and part.name == "ray_log" and part.leftover == 0
    assert part.data["log_type"] == "swap_base_in"
    assert part.data["out_amount"] == 83_067
    by_name = programs.by_name["raydium_amm_v4"].events["ray_log"]
    assert json.loads(by_name.encode_json(part.data))["amount_in"] == "10000"
    start = bytes([0]) + bytes(8) + b"\x06\x09" + bytes(64)
    part = programs.event(AMM_V4, start)
    assert part is not None
    assert json.loads(by_name.encode_json(part.data))["pc_decimals"] == 6


def test_token_instructions_and_extensions_subtags(programs: Programs) -> None:
    five = (5).to_bytes(8, "little")
    for data, name in (
        (b"\x0c" + five + b"\x06", "transferChecked"),
        (b"\x1a\x01" + five + b"\x06" + five, "transferCheckedWithFee"),
        (b"\x14\x06" + bytes(32) + b"\x00", "initializeMint2"),
    ):
        part = programs.instruction(TOKEN_2022, data)
        assert part is not None and (part.name, part.leftover) == (name, 0)


def test_a_file_in_a_folder_is_a_program(tmp_path: Path) -> None:
    write(tmp_path, "coin.json", small_idl(metadata={"address": COMMCOIN}))
    programs = Programs.load(tmp_path)
    assert programs.name_of(COMMCOIN) == "coin"
    assert programs.by_name["coin"].instructions.keys() == {"pay_in"}
    assert "pump" in programs.by_name


def test_the_file_name_may_be_the_program_id(tmp_path: Path) -> None:
    write(tmp_path, f"{COMMCOIN}.json", small_idl())
    assert Programs.load(tmp_path).by_id[COMMCOIN].name == COMMCOIN


def test_a_users_file_replaces_a_shipped_one(tmp_path: Path) -> None:
    pump = Programs.load().by_name["pump"].program_id
    write(tmp_path, "pump.json", small_idl(address=pump))
    assert Programs.load(tmp_path).by_name["pump"].events.keys() == {"Paid"}
    write(tmp_path, "my_pump.json", small_idl(address=pump))
    (tmp_path / "pump.json").unlink()
    assert Programs.load(tmp_path).name_of(pump) == "my_pump"


def test_two_files_for_one_program_are_refused(tmp_path: Path) -> None:
    for name in ("one.json", "two.json"):
        write(tmp_path, name, small_idl(address=COMMCOIN))
    with pytest.raises(ConfigError, match=r"two\.json.*one\.json"):
        Programs.load(tmp_path)


def test_a_name_that_another_program_has_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "pump.json", small_idl(address=COMMCOIN))
    with pytest.raises(ConfigError, match=r"pump\.json"):
        Programs.load(tmp_path)


@pytest.mark.parametrize("name", ["My Coin.json", "coin-x.json", "ä.json"])
def test_a_name_that_cannot_be_a_topic_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, small_idl(address=COMMCOIN))
    with pytest.raises(ConfigError, match="it names topics"):
        Programs.load(tmp_path)


def test_a_file_without_address_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "coin.json", small_idl())
    with pytest.raises(ConfigError, match=r'coin\.json: got no address, expected the program id as "address"'):
        Programs.load(tmp_path)
    with pytest.raises(ConfigError, match="the address nope"):
        Programs.load(tmp_path, addresses={"coin": "nope"})


def test_a_folder_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a folder with IDL files"):
        Programs.load(tmp_path / "gone")


def test_the_shipped_idls_work_as_dropped_files_too(tmp_path: Path) -> None:
    for path in SHIPPED.glob("*/idl.json"):
        shutil.copy(path, tmp_path / f"{path.parent.name}.json")
    assert Programs.load(tmp_path).by_name.keys() == Programs.load().by_name.keys()


@pytest.mark.timeout(30)
@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link to nothing", "too large"])
def test_an_idl_that_is_no_file_of_bounded_size_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "venue.json"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "link to nothing":
            path.symlink_to(tmp_path / "nowhere")
        case _:
            path.write_bytes(b" " * (IDL_BYTES_MAX + 1))
    with pytest.raises(ConfigError, match=r"venue\.json"):
        Programs.load(tmp_path)
