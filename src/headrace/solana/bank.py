"""Executes transactions on local accounts and programs, with Solana's own runtime (LiteSVM)."""

import lzma
import re
from collections.abc import Iterable
from pathlib import Path
from threading import Lock
from typing import Any, Final, NamedTuple, Self

import msgspec
from solders.account import Account as SvmAccount
from solders.clock import Clock as SvmClock
from solders.litesvm import LiteSVM
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction
from solders.transaction_metadata import FailedTransactionMetadata

from headrace.model.errors import BadInputError, ConfigError
from headrace.model.keys import SYSTEM_PROGRAM, TOKEN_PROGRAM, WSOL_MINT, is_key
from headrace.solana.encodings import bytes_of
from headrace.solana.notifications import ACCOUNT_MAX

FILE_MAX: Final = 512 * 1024 * 1024
WSOL_ACCOUNT: Final = bytes(44) + b"\x09\x01" + bytes(36)
"""Mint of wrapped SOL: nine decimals, no authority."""
RENT_MINT: Final = 1_461_600


_FAILED: Final = re.compile(r"Program (\w+) failed: ")
_CUSTOM: Final = re.compile(r"Custom\((\d+)\)")


class Held(NamedTuple):
    """Account in the bank."""

    owner: str
    data: bytes
    lamports: int


class Executed(NamedTuple):
    """Outcome of a transaction.

    If `err` is None, the transaction succeeded. Otherwise it changed nothing, except that its fee was paid. `code` is
    the program's own error number, and `program` the program that failed with it.
    """

    err: str | None
    logs: tuple[str, ...]
    units: int
    code: int | None = None
    program: str | None = None


class _Captured(msgspec.Struct, frozen=True):
    slot: int | None = None
    unix_timestamp: int | None = None
    epoch: int | None = None


class _Program(msgspec.Struct, frozen=True):
    """Program.

    Its bytes are in `data`, or in a `file` next to the bank's (plain or `.xz`), padded with zeros to `size`.
    """

    pubkey: str
    data: Any = None
    file: str | None = None
    size: int = 0


class _Content(msgspec.Struct, frozen=True):
    owner: str
    data: Any
    lamports: int = 0


class _Entry(msgspec.Struct, frozen=True):
    pubkey: str
    account: _Content


class BankFile(msgspec.Struct, frozen=True):
    """A bank as a file: programs, and accounts in the form that `headrace quote` reads."""

    accounts: list[_Entry]
    programs: list[_Program] = []
    captured: _Captured = _Captured()


class Bank:
    """Accounts and programs at one moment of the chain. Each execution changes them."""

    def __init__(self, *, slot: int = 1, unix_timestamp: int = 0, epoch: int = 0) -> None:
        # The chain adapter on this bank checks blockhashes, because the runtime knows only one at a time.
        self._svm = LiteSVM().with_sigverify(True).with_blockhash_check(False)
        self._keys: set[str] = set()
        self._lock = Lock()
        self.revision = 0
        """Number of changes: of accounts, of the clock, and by transactions."""
        self.set_clock(slot=slot, unix_timestamp=unix_timestamp, epoch=epoch)
        self.put(WSOL_MINT, Held(TOKEN_PROGRAM, WSOL_ACCOUNT, RENT_MINT))

    @classmethod
    def open(cls, path: Path) -> Self:
        """Return the bank in a file. Raises BadInputError naming what is expected."""
        if path.stat().st_size > FILE_MAX:
            raise BadInputError("not a bank", f"{path} is longer than {FILE_MAX} bytes")
        try:
            file = msgspec.json.decode(path.read_bytes(), type=BankFile)
        except (msgspec.DecodeError, RecursionError) as error:
            raise BadInputError("not a bank", f"{path}: {error}, expected an object with accounts, programs") from None
        captured = file.captured
        bank = cls(slot=captured.slot or 1, unix_timestamp=captured.unix_timestamp or 0, epoch=captured.epoch or 0)
        for program in file.programs:
            bank.add_program(program.pubkey, _elf(program, path.parent))
        for entry in file.accounts:
            content = entry.account
            if content.owner.startswith("Sysvar"):
                continue
            if not is_key(entry.pubkey) or not is_key(content.owner):
                raise BadInputError("not a bank", f"{entry.pubkey[:50]} of {content.owner[:50]}, expected public keys")
            bank.put(entry.pubkey, Held(content.owner, bytes_of(content.data, size_max=ACCOUNT_MAX), content.lamports))
        return bank

    def set_clock(self, *, slot: int, unix_timestamp: int, epoch: int) -> None:
        """Set the slot, time and epoch that programs see."""
        self._svm.set_clock(SvmClock(slot, 0, epoch, epoch, unix_timestamp))
        self.revision += 1

    @property
    def clock(self) -> tuple[int, int, int]:
        """Slot, Unix time in seconds, and epoch."""
        clock = self._svm.get_clock()
        return clock.slot, clock.unix_timestamp, clock.epoch

    def add_program(self, key: str, elf: bytes) -> None:
        """Load a program. Raises BadInputError if the bytes are not an ELF file."""
        if not elf.startswith(b"\x7fELF"):
            raise BadInputError("not a program", f"{key}: {len(elf)} bytes, expected an ELF file")
        self._svm.add_program(Pubkey.from_string(key), elf)

    def put(self, key: str, held: Held) -> None:
        """Create or replace an account."""
        account = SvmAccount(held.lamports, held.data, Pubkey.from_string(held.owner), False)
        with self._lock:
            self._svm.set_account(Pubkey.from_string(key), account)
            self._keys.add(key)
            self.revision += 1

    def account(self, key: str) -> Held | None:
        """Return an account; None if it does not exist."""
        with self._lock:
            found = self._svm.get_account(Pubkey.from_string(key))
        return None if found is None else Held(str(found.owner), bytes(found.data), found.lamports)

    def accounts(self, keys: Iterable[str] | None = None) -> dict[str, Held]:
        """Return the existing accounts among `keys`, or among all that were put into the bank."""
        found = {key: self.account(key) for key in (self._keys if keys is None else keys)}
        return {key: held for key, held in found.items() if held is not None}

    def airdrop(self, key: str, lamports: int) -> None:
        """Add lamports to an account. A new account is owned by the system program."""
        held = self.account(key) or Held(SYSTEM_PROGRAM, b"", 0)
        self.put(key, held._replace(lamports=held.lamports + lamports))

    def blockhash(self) -> str:
        """Return the latest blockhash."""
        return str(self._svm.latest_blockhash())

    def next_block(self) -> None:
        """Begin a block with a new blockhash. Transactions with the previous blockhash can no longer land."""
        self._svm.expire_blockhash()

    def execute(self, raw: bytes) -> Executed:
        """Execute a signed transaction. Raises BadInputError if the bytes are not a transaction."""
        try:
            transaction = VersionedTransaction.from_bytes(raw)
        except ValueError as error:
            raise BadInputError("not a transaction", str(error)[:200]) from None
        with self._lock:
            result = self._svm.send_transaction(transaction)
            self.revision += 1
        if isinstance(result, FailedTransactionMetadata):
            meta, err = result.meta(), str(result.err())
            failed = [_FAILED.match(line) for line in meta.logs()]
            program = next((found[1] for found in failed if found), None)
            code = _CUSTOM.search(err)
            return Executed(
                err, tuple(meta.logs()), meta.compute_units_consumed(), int(code[1]) if code else None, program
            )
        return Executed(None, tuple(result.logs()), result.compute_units_consumed())


def _elf(program: _Program, folder: Path) -> bytes:
    """Return the bytes of a program. Raises BadInputError if there are none, or more than an account can have."""
    if program.file is not None:
        raw = (folder / program.file).read_bytes()
        if program.file.endswith(".xz"):
            raw = lzma.LZMADecompressor().decompress(raw, max_length=ACCOUNT_MAX)
    elif program.data is not None:
        raw = bytes_of(program.data, size_max=ACCOUNT_MAX)
    else:
        raise BadInputError("not a bank", f"program {program.pubkey} without data or file")
    if program.size > ACCOUNT_MAX:
        raise BadInputError("not a bank", f"program {program.pubkey} of {program.size} bytes")
    return raw.ljust(program.size, b"\0")


_SHARED: Final[dict[Path, Bank]] = {}
_OPENING: Final = Lock()


def shared_bank(path: Path) -> Bank:
    """Return the bank in a file, the same for all callers in this process. The first call takes a second or more.

    Executions change only memory: each process begins with the bank as it is in the file. Raises ConfigError for a
    missing file, and BadInputError if the file is not a bank.
    """
    if not path.is_file():
        raise ConfigError("BANK_FILE", str(path), "a file that exists")
    with _OPENING:
        bank = _SHARED.get(path.resolve())
        if bank is None:
            bank = _SHARED[path.resolve()] = Bank.open(path)
        return bank
