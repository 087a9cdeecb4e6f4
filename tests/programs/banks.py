"""Banks with the deployed programs, for tests that hold curves and swaps against them.

The bytes of the programs are not part of the project. They are looked for in the folder that PROGRAM_BYTES
names, else in `shared/programs` beside the repository; without them such tests are skipped.
"""

import json
import lzma
import os
import struct
from functools import cache
from pathlib import Path
from typing import Any, Final

import pybase64
import pytest
from solders.compute_budget import set_compute_unit_limit
from solders.hash import Hash
from solders.instruction import AccountMeta as SoldersMeta
from solders.instruction import Instruction as SoldersInstruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from headrace.model.keys import WSOL_MINT
from headrace.model.transactions import Instruction
from headrace.programs.quoting import TOKEN_2022_PROGRAM, Account, Clock
from headrace.programs.swapping import token_account, token_program
from headrace.solana.bank import Bank, Executed, Held
from tests.mainnet import FOLDER, programs
from tests.programs.sets import PROGRAM_OF, Pool

BYTES: Final = Path(os.environ.get("PROGRAM_BYTES", Path(__file__).parents[3] / "shared" / "programs"))
RICH: Final = 10**17


@cache
def manifest() -> dict[str, dict[str, str | int]]:
    """Return what is in the folder of program bytes, by name; skips the test where there is no such folder."""
    if not (BYTES / "MANIFEST.json").is_file():
        pytest.skip("no program bytes (PROGRAM_BYTES)")
    return {entry["name"]: entry for entry in json.loads((BYTES / "MANIFEST.json").read_text())}


@cache
def elf(name: str) -> bytes:
    """The deployed bytes of a program."""
    return lzma.decompress((BYTES / f"{name}.so.xz").read_bytes()).ljust(int(manifest()[name]["size"]), b"\0")


class Scene:
    """A bank with one set of accounts and a user who has plenty of both tokens."""

    def __init__(self, name: str, *loaded: str) -> None:
        self.name, folder = name, name.partition("/")[0]
        self.venue = PROGRAM_OF.get(folder, folder)
        document = json.loads((FOLDER / "accounts" / f"{name}.json").read_text())
        captured = document["captured"]
        self.clock = Clock(captured["slot"], captured["unix_timestamp"], captured["epoch"])
        self.bank = Bank(
            slot=captured["slot"] or 1, unix_timestamp=captured["unix_timestamp"], epoch=captured["epoch"] or 0
        )
        for program in loaded:
            self.bank.add_program(str(manifest()[program]["program_id"]), elf(program))
        file = accounts_of(document)
        for key, held in file.items():
            self.bank.put(key, held)
        self.keys = list(file)
        self.user = Keypair.from_seed(bytes(range(32)))
        self.owner = str(self.user.pubkey())
        self.bank.airdrop(self.owner, RICH)
        self._saved: dict[str, Held] = {}

    def pool(self) -> Pool:
        """The accounts of the set as they are now."""
        accounts = {}
        for key, held in self.bank.accounts(self.keys).items():
            accounts[key] = Account.of(held.owner, held.data, programs().account(held.owner, held.data))
        return Pool(self.venue, accounts, self.clock)

    def hold(self, owner: str, mint: str, amount: int) -> str:
        """Give an owner a token account with so much in it; returns its key."""
        accounts = self.pool().accounts
        program, key = token_program(mint, accounts), token_account(owner, mint, accounts)
        data = pybase64.b64decode(token_data(owner, mint, amount, program))
        self.bank.put(key, Held(program, data, 2_074_080 + (amount if mint == WSOL_MINT else 0)))
        return key

    def has(self, mint: str, *, owner: str | None = None) -> int:
        """Return how much the user has of a mint; of SOL without a token account, the lamports."""
        held = self.bank.account(token_account(owner or self.owner, mint, self.pool().accounts))
        if held is None or not held.data:
            wallet = self.bank.account(owner or self.owner)
            return wallet.lamports if mint == WSOL_MINT and wallet is not None else 0
        return int.from_bytes(held.data[64:72], "little")

    def lamports(self) -> int:
        wallet = self.bank.account(self.owner)
        return 0 if wallet is None else wallet.lamports

    def save(self, *more: str) -> None:
        """Remember all accounts of the set, and these."""
        self._saved = self.bank.accounts([*self.keys, *more])

    def restore(self) -> None:
        """Put back what was saved."""
        for key, held in self._saved.items():
            self.bank.put(key, held)

    def send(self, *instructions: Instruction) -> Executed:
        """Execute these in one transaction of the user."""
        calls = [set_compute_unit_limit(1_400_000), *(_solders(each) for each in instructions)]
        message = MessageV0.try_compile(self.user.pubkey(), calls, [], Hash.from_string(self.bank.blockhash()))
        executed = self.bank.execute(bytes(VersionedTransaction(message, [self.user])))
        self.bank.next_block()
        return executed


def token_data(owner: str, mint: str, amount: int, program: str) -> str:
    """Data of a token account, in base64."""
    data = bytes(Pubkey.from_string(mint)) + bytes(Pubkey.from_string(owner)) + struct.pack("<Q", amount)
    native = struct.pack("<IQ", 1, 2_039_280) if mint == WSOL_MINT else bytes(12)
    data += bytes(36) + b"\x01" + native + bytes(44)
    if program == TOKEN_2022_PROGRAM:
        data += b"\x02\x07\0\0\0"  # an account, whose owner can't be changed
    return pybase64.b64encode(data).decode()


def accounts_of(document: dict[str, Any]) -> dict[str, Held]:
    """The accounts of a set, but for the sysvars."""
    found = {}
    for each in document["accounts"]:
        content = each["account"]
        if not content["owner"].startswith("Sysvar"):
            data = pybase64.b64decode(content["data"][0])
            found[each["pubkey"]] = Held(content["owner"], data, content["lamports"])
    return found


def _solders(instruction: Instruction) -> SoldersInstruction:
    metas = [SoldersMeta(Pubkey.from_string(meta.pubkey), meta.signer, meta.writable) for meta in instruction.accounts]
    return SoldersInstruction(Pubkey.from_string(instruction.program_id), instruction.data, metas)
