"""A chain in this process that executes real programs on the accounts of a bank file, with play money."""

import asyncio
import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Final, NamedTuple, Self
from weakref import WeakKeyDictionary

import msgspec
from solders.hash import Hash
from solders.instruction import AccountMeta as SoldersMeta
from solders.instruction import Instruction as SoldersInstruction
from solders.keypair import Keypair
from solders.message import MessageV0
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from headrace.adapters import Context
from headrace.chains import Answer, Blockhash, Landing
from headrace.config import Setting
from headrace.model.amounts import BaseUnits
from headrace.model.errors import ConfigError, InvariantError, TransientError
from headrace.model.keys import WSOL_MINT
from headrace.model.transactions import Depth, Instruction, Signed
from headrace.programs.swaps import SWAPS
from headrace.runtime.clock import Clock
from headrace.solana.bank import Bank, Executed, Held, shared_bank

GENESIS_MS: Final = 1_600_000_000_000
SIZE_MAX: Final = 1232
"""Maximum number of bytes of a transaction, as on real nodes."""
LANDED_MAX: Final = 100_000
LAMPORTS_PER_SIGNATURE: Final = 5_000
LAMPORTS_PER_SOL: Final = 1_000_000_000

_KEYPAIR: Final = Keypair.from_seed(hashlib.sha256(b"headrace local chain").digest())
WALLET: Final = str(_KEYPAIR.pubkey())
"""Wallet of every local chain. Anyone can compute its key."""


class BankSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[bank]`. Anyone can compute the key of the wallet: nothing of value may ever be sent to it."""

    file: Annotated[
        str | None,
        Setting("file with the first accounts and programs of the local chain", env=("BANK_FILE",)),
    ] = None
    sol: Annotated[int, msgspec.Meta(ge=1), Setting("SOL in the wallet at the start", env=("BANK_SOL",))] = 1_000
    block_ms: Annotated[int, msgspec.Meta(ge=1), Setting("time between blocks", env=("BANK_BLOCK_MS",))] = 250
    validity_blocks: Annotated[
        int, msgspec.Meta(ge=1), Setting("blocks for which a blockhash is valid", env=("BANK_VALIDITY_BLOCKS",))
    ] = 150
    finality_blocks: Annotated[
        int, msgspec.Meta(ge=1), Setting("blocks until a block is final", env=("BANK_FINALITY_BLOCKS",))
    ] = 32


class _Landed(NamedTuple):
    """Transaction in a block."""

    height: int
    executed: Executed
    received: dict[str, int]


_LANDED: Final[WeakKeyDictionary[Bank, dict[str, _Landed]]] = WeakKeyDictionary()
"""Bank → signature → transaction. All local chains of a process on one bank are the same chain."""


class LocalChain:
    """Chain on a bank. Blocks follow wall time.

    A transaction is executed when it arrives, and final some blocks later.
    """

    Settings: ClassVar = BankSettings
    SECTION: ClassVar = "bank"

    @classmethod
    async def open(cls, settings: BankSettings, context: Context) -> Self:
        """Return the chain. Raises ConfigError without a bank file, BadInputError for a file that is not a bank."""
        file = await asyncio.to_thread(cls.check_settings, settings)
        return cls(settings, await asyncio.to_thread(shared_bank, file), context.clock)

    @staticmethod
    def check_settings(settings: BankSettings) -> Path:
        """Return the path of the bank. Raises ConfigError if none is named, or the file does not exist."""
        if settings.file is None:
            raise ConfigError("BANK_FILE", "nothing", "a bank file, as the local chain is chosen")
        if not Path(settings.file).is_file():
            raise ConfigError("BANK_FILE", settings.file, "a file that exists")
        return Path(settings.file)

    def __init__(self, settings: BankSettings, bank: Bank, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._bank, self._landed = bank, _LANDED.setdefault(bank, {})
        self.owner = WALLET
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        if self._bank.account(self.owner) is None:
            self._bank.airdrop(self.owner, settings.sol * LAMPORTS_PER_SOL)

    async def blockhash(self) -> Blockhash:
        height = self._height()
        last = height + self._settings.validity_blocks
        name = hashlib.sha256(b"headrace local block %d" % height).digest()
        return Blockhash(str(Hash(name)), last)

    def sign(self, instructions: Sequence[Instruction], blockhash: Blockhash) -> Signed:
        """Sign a v0 transaction of these instructions."""
        if not instructions:
            raise InvariantError("no instructions, expected at least one")
        calls = [_solders(each) for each in instructions]
        try:
            message = MessageV0.try_compile(_KEYPAIR.pubkey(), calls, [], Hash.from_string(blockhash.hash))
            transaction = VersionedTransaction(message, [_KEYPAIR])
            raw = bytes(transaction)
        except ValueError as error:
            raise InvariantError(f"instructions that can't be signed: {error}, expected those of one wallet") from error
        if len(raw) > SIZE_MAX:
            raise InvariantError(f"a transaction of {len(raw)} bytes, expected at most {SIZE_MAX}")
        return Signed(str(transaction.signatures[0]), raw, blockhash.last_valid_height)

    async def send(self, signed: Signed) -> None:
        """Execute the bytes, unless they were executed before or their blockhash has expired."""
        height = self._height()
        if signed.signature in self._landed or height > signed.last_valid_height:
            return
        if len(self._landed) >= LANDED_MAX:
            raise TransientError("the local chain is full: it begins anew with the next start")
        keys = [str(key) for key in VersionedTransaction.from_bytes(signed.raw).message.account_keys]
        before = self._bank.accounts(keys)
        executed = self._bank.execute(signed.raw)
        received = {} if executed.err else self._received(before, self._bank.accounts(keys))
        self._landed[signed.signature] = _Landed(height, executed, received)

    async def finalized_height(self) -> int:
        return self._height() - self._settings.finality_blocks

    async def look(self, signature: str) -> Answer:
        height, landed = self._height(), self._landed.get(signature)
        if landed is None:
            return Answer(None, height)
        depth = height - landed.height
        final = depth >= self._settings.finality_blocks
        executed = landed.executed
        if executed.err is None:
            brought = BaseUnits(max(0, *landed.received.values(), 0))
            depth_now: Depth = "finalized" if final else "confirmed"
            return Answer(Landing(depth_now, None, None, brought, landed.received), height)
        late = executed.program in _SLIPPAGE and executed.code in _SLIPPAGE[executed.program]
        reason = "slippage_exceeded" if late else "chain_error"
        return Answer(Landing("finalized" if final else "confirmed", executed.err, reason, None), height)

    async def changed(self, signature: str, timeout_s: float) -> None:
        known = self._landed.get(signature)
        await self._clock.sleep(timeout_s if known is None else min(timeout_s, self._settings.block_ms / 1000))

    async def check(self, *, thorough: bool) -> None:
        """Do nothing: the chain is in this process."""

    async def close(self) -> None:
        """Do nothing: other parts of this process may use the bank."""

    def _height(self) -> int:
        return (self._clock.wall_ns() // 1_000_000 - GENESIS_MS) // self._settings.block_ms

    def _received(self, before: dict[str, Held], after: dict[str, Held]) -> dict[str, int]:
        """Return the change of the wallet's balance of each mint, without fees and the rent of new accounts."""
        owner, found = self.owner, dict[str, int]()
        for balances, sign in ((before, -1), (after, 1)):
            found[WSOL_MINT] = found.get(WSOL_MINT, 0) + sign * _lamports(balances, owner)
            for held in balances.values():
                mint = _mint(held, owner)
                if mint not in (None, WSOL_MINT):
                    found[str(mint)] = found.get(str(mint), 0) + sign * _amount(held)
        new = [held for key, held in after.items() if key not in before and _mint(held, owner) != WSOL_MINT]
        found[WSOL_MINT] += LAMPORTS_PER_SIGNATURE + sum(held.lamports for held in new)
        return {mint: change for mint, change in found.items() if change}


_SLIPPAGE: Final = {swap.program: swap.slippage for swap in SWAPS.values()}


def _lamports(balances: Mapping[str, Held], owner: str) -> int:
    """Return an owner's lamports, with those in accounts of wrapped SOL."""
    wrapped = sum(held.lamports for held in balances.values() if _mint(held, owner) == WSOL_MINT)
    return wrapped + (balances[owner].lamports if owner in balances else 0)


def _mint(held: Held, owner: str) -> str | None:
    """Return the mint of a coin account; None if it is no coin account of this owner."""
    if len(held.data) < 165 or held.data[32:64] != bytes(Pubkey.from_string(owner)):
        return None
    return str(Pubkey.from_bytes(held.data[:32]))


def _amount(held: Held) -> int:
    """Return the balance of a coin account."""
    amount: int = struct.unpack_from("<Q", held.data, 64)[0]
    return amount


def _solders(instruction: Instruction) -> SoldersInstruction:
    metas = [SoldersMeta(Pubkey.from_string(meta.pubkey), meta.signer, meta.writable) for meta in instruction.accounts]
    return SoldersInstruction(Pubkey.from_string(instruction.program_id), instruction.data, metas)
