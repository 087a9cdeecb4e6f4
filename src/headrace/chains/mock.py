"""A chain in one SQLite file, shared by all processes that open it. It can fail in every way a real chain can."""

import hashlib
import random
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Self

import msgspec

from headrace.adapters import Context
from headrace.chains import Answer, Blockhash, Landing
from headrace.config import Setting
from headrace.database.sqlite import SqliteThread
from headrace.model.amounts import BaseUnits
from headrace.model.base58 import b58encode
from headrace.model.errors import ConfigError, InvariantError, TransientError
from headrace.model.transactions import MEMO_PROGRAM, MOCK_SWAP_PROGRAM, Instruction, MockSwap, Signed
from headrace.runtime.clock import Clock

GENESIS_MS: Final = 1_600_000_000_000
FOUND_MAX: Final = 10_000
SLIPPAGE_EXCEEDED: Final = {"InstructionError": [0, {"Custom": 6001}]}

WALLET: Final = "MockWa11et111111111111111111111111111111111"

_Chance = msgspec.Meta(ge=0, le=1)

_SCHEMA: Final = """create table if not exists transactions (
  signature text primary key, memo text not null, seen_at integer not null, lands_at integer, vanishes_at integer,
  confirmed_at integer, height integer, last_valid_height integer not null, err text, amount_out text not null
) strict, without rowid"""


class MockChainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[mock_chain]`. Chances are from 0 to 1. The same seed gives each transaction the same outcome."""

    file: Annotated[
        str,
        Setting(
            "ledger of the mock chain; workers with the same file share the chain",
            env=("MOCK_CHAIN_FILE",),
            kind="file",
        ),
    ] = "headrace-mock-chain.db"
    execution_ms: Annotated[
        str,
        msgspec.Meta(pattern=r"^\d{1,6}(-\d{1,6})?$"),
        Setting("time from send to confirmation, as a range; 0: immediately", env=("MOCK_EXECUTION_MS",)),
    ] = "2000-3000"
    seed: Annotated[int, Setting("seed of the outcomes of transactions", env=("MOCK_CHAIN_SEED",))] = 0
    block_ms: Annotated[int, msgspec.Meta(ge=1), Setting("time between blocks", env=("MOCK_BLOCK_MS",))] = 250
    validity_blocks: Annotated[
        int, msgspec.Meta(ge=1), Setting("blocks for which a blockhash is valid", env=("MOCK_VALIDITY_BLOCKS",))
    ] = 150
    finality_blocks: Annotated[
        int, msgspec.Meta(ge=0), Setting("blocks until a block is final", env=("MOCK_FINALITY_BLOCKS",))
    ] = 32
    drift_bps: Annotated[
        int,
        msgspec.Meta(ge=0, le=5000),
        Setting("largest move of the price between quote and landing", env=("MOCK_DRIFT_BPS",)),
    ] = 50
    drop: Annotated[float, _Chance, Setting("chance that a send is lost", env=("MOCK_DROP",))] = 0.0
    late: Annotated[
        float, _Chance, Setting("chance that a transaction lands just before its blockhash ends", env=("MOCK_LATE",))
    ] = 0.0
    fork: Annotated[
        float, _Chance, Setting("chance that a transaction is first seen on a fork that dies", env=("MOCK_FORK",))
    ] = 0.0
    lag: Annotated[
        float, _Chance, Setting("chance that a look-up is answered by a node that lags", env=("MOCK_LAG",))
    ] = 0.0
    lag_blocks: Annotated[
        int, msgspec.Meta(ge=0), Setting("most blocks that such a node lags", env=("MOCK_LAG_BLOCKS",))
    ] = 20
    error: Annotated[
        float,
        _Chance,
        Setting("chance that a call fails; a send that fails may have arrived", env=("MOCK_ERROR",)),
    ] = 0.0


class _Swap(MockSwap, frozen=True, kw_only=True):
    """Swap in a transaction of the mock chain. A transaction is JSON: one swap and one blockhash."""

    memo: str


_mock_swaps = msgspec.json.Decoder(MockSwap)
_transactions = msgspec.json.Decoder(tuple[_Swap, Blockhash])


class MockChain:
    """The mock chain: `Chain` on one SQLite file.

    Blocks follow wall time, so every process sees the same height. The outcome of a transaction is drawn when its bytes
    first arrive. The ledger counts executions by itself: `executions` returns how often each memo was executed,
    regardless of what the store of orders says.
    """

    Settings: ClassVar = MockChainSettings
    SECTION: ClassVar = "mock_chain"

    @classmethod
    async def open(cls, settings: MockChainSettings, context: Context) -> Self:
        """Return the chain; its first call opens the file.

        Raises ConfigError for a range whose end is below its start.
        """
        return cls(settings, context.clock)

    def __init__(self, settings: MockChainSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        self._delay_ms = self.check_settings(settings)
        self._luck = random.Random(f"{settings.seed}:calls")  # noqa: S311
        self._luck_of_checks = random.Random(f"{settings.seed}:checks")  # noqa: S311
        self._found: dict[str, dict[str, Any]] = {}
        self.owner = WALLET
        self.on_trouble: Callable[[TransientError], None] = lambda _: None
        self._ledger: SqliteThread[None] = SqliteThread(
            settings.file, setup=_set_up, on_trouble=lambda it: self.on_trouble(it), durable=False
        )

    @staticmethod
    def check_settings(settings: MockChainSettings) -> tuple[int, int]:
        """Return the shortest and the longest delay in milliseconds. Raises ConfigError for a range in wrong order."""
        low, _, high = settings.execution_ms.partition("-")
        if int(low) > int(high or low):
            raise ConfigError("MOCK_EXECUTION_MS", settings.execution_ms, "a range from low to high")
        return int(low), int(high or low)

    async def blockhash(self) -> Blockhash:
        self._may_fail()
        height = self._height(self._now_ms())
        return Blockhash(f"bh{height}", height + self._settings.validity_blocks)

    def sign(self, instructions: Sequence[Instruction], blockhash: Blockhash) -> Signed:
        """Sign one memo and one swap of a mock venue, in either order."""
        data = {instruction.program_id: instruction.data for instruction in instructions}
        if len(instructions) != 2 or data.keys() != {MEMO_PROGRAM, MOCK_SWAP_PROGRAM}:
            programs = ", ".join(sorted(data)) or "none"
            raise InvariantError(f"programs of the instructions are {programs}, expected one memo and one mock swap")
        try:
            _mock_swaps.decode(data[MOCK_SWAP_PROGRAM])
        except msgspec.DecodeError as error:
            raise InvariantError("the data of the mock swap is unreadable, expected a MockSwap as JSON") from error
        memo = msgspec.json.encode(data[MEMO_PROGRAM].decode())
        raw = b'[{"memo":%b,%b,%b]' % (memo, data[MOCK_SWAP_PROGRAM][1:], msgspec.json.encode(blockhash))
        return Signed(b58encode(hashlib.sha512(raw).digest()), raw, blockhash.last_valid_height)

    async def send(self, signed: Signed) -> None:
        before = self._luck.random() < self._settings.error / 2
        after = self._luck.random() < self._settings.error / 2
        if before:
            raise TransientError("the node could not be reached")
        if self._luck.random() >= self._settings.drop:
            row = await self._ledger.ask(partial(self._arrive, signed))
            if row is not None:
                self._know(row)
        if after:
            raise TransientError("the node did not answer")

    async def finalized_height(self) -> int:
        self._may_fail()
        return self._height(self._now_ms()) - self._settings.finality_blocks

    async def look(self, signature: str) -> Answer:
        self._may_fail()
        row = await self._find(signature)
        now_ms = self._now_ms()
        if self._luck.random() < self._settings.lag:
            now_ms -= self._luck.randint(0, self._settings.lag_blocks) * self._settings.block_ms
        return Answer(None if row is None else self._landing(row, now_ms), self._height(now_ms))

    async def changed(self, signature: str, timeout_s: float) -> None:
        row = await self._find(signature)
        now_ms = self._now_ms()
        if row is not None and row["confirmed_at"] is not None and row["confirmed_at"] > now_ms:
            timeout_s = min(timeout_s, (row["confirmed_at"] - now_ms) / 1000)
        await self._clock.sleep(timeout_s)

    async def executions(self) -> dict[str, int]:
        """Return memo → number of executions without an error."""
        sql = "select memo, count(*) from transactions where err is null and confirmed_at <= ? group by memo"
        now_ms = self._now_ms()
        return await self._ledger.ask(lambda db: dict(db.execute(sql, (now_ms,)).fetchall()), writes=False)

    async def check(self, *, thorough: bool) -> None:
        """Check the node and its file.

        After a failure, also read the whole ledger, as only a full read finds a damaged page.
        """
        if self._luck_of_checks.random() < self._settings.error:
            raise TransientError("the node could not be asked")
        await self._ledger.check(thorough=thorough)
        if thorough:
            await self._ledger.ask(_read_all, writes=False)

    async def close(self) -> None:
        await self._ledger.close()

    def _arrive(self, signed: Signed, db: sqlite3.Connection) -> dict[str, Any] | None:
        """Write the outcome of bytes unless they arrived before: identical bytes land at most once.

        Bytes never land after the end of their blockhash. They arrive when they are written, not when they were sent.
        Delayed bytes therefore can't land at a time at which other processes have already looked.
        """
        row = self._fate(signed, self._now_ms())
        names = ", ".join(row)
        marks = ", ".join(f":{name}" for name in row)
        written = db.execute(f"insert or ignore into transactions ({names}) values ({marks})", row).rowcount
        return row if written else None

    async def _find(self, signature: str) -> dict[str, Any] | None:
        """Return the row of a signature. A row never changes, so a row once found is not read again."""
        row = self._found.get(signature)
        if row is None:
            row = await self._ledger.ask(partial(_find, signature), writes=False)
            if row is not None:
                self._know(row)
        return row

    def _know(self, row: dict[str, Any]) -> None:
        self._found[row["signature"]] = row
        if len(self._found) > FOUND_MAX:
            del self._found[next(iter(self._found))]

    def _now_ms(self) -> int:
        return self._clock.wall_ns() // 1_000_000

    def _height(self, at_ms: int) -> int:
        return (at_ms - GENESIS_MS) // self._settings.block_ms

    def _may_fail(self) -> None:
        if self._luck.random() < self._settings.error:
            raise TransientError("the node could not be asked")

    def _fate(self, signed: Signed, now_ms: int) -> dict[str, Any]:
        """Return the outcome of bytes that arrive now: when they land, if first on a fork, and with what result."""
        settings = self._settings
        swap, _ = _transactions.decode(signed.raw)
        luck = _Luck(f"{settings.seed}:{signed.signature}")
        delay_ms = luck.randint(*self._delay_ms)
        last_ms = GENESIS_MS + (signed.last_valid_height + 1) * settings.block_ms - 1
        lands_at = now_ms + delay_ms // 2
        seen_at, vanishes_at = lands_at, None
        if luck.random() < settings.fork:
            vanishes_at = lands_at = seen_at + 4 * settings.block_ms
        if luck.random() < settings.late:
            lands_at = max(lands_at, last_ms - luck.randint(0, settings.block_ms))
        landed = lands_at <= last_ms
        actual = swap.quoted_out * (10_000 + luck.randint(-settings.drift_bps, settings.drift_bps)) // 10_000
        return {
            "signature": signed.signature,
            "memo": swap.memo,
            "seen_at": seen_at,
            "vanishes_at": vanishes_at,
            "lands_at": lands_at if landed else None,
            "confirmed_at": lands_at + (delay_ms - delay_ms // 2) if landed else None,
            "height": self._height(lands_at) if landed else None,
            "last_valid_height": signed.last_valid_height,
            "err": None if actual >= swap.min_out else msgspec.json.encode(SLIPPAGE_EXCEEDED).decode(),
            "amount_out": str(actual),
        }

    def _landing(self, row: dict[str, Any], now_ms: int) -> Landing | None:
        """Return the landing that a node reports at `now_ms`; None if it knows none."""
        on_fork = row["vanishes_at"] is not None and row["seen_at"] <= now_ms < row["vanishes_at"]
        landed = row["lands_at"] is not None and row["lands_at"] <= now_ms
        if not landed:
            return Landing("processed", None) if on_fork else None
        if row["confirmed_at"] > now_ms:
            return Landing("processed", None)
        final = self._height(now_ms) - self._settings.finality_blocks >= row["height"]
        err = None if row["err"] is None else msgspec.json.decode(row["err"])
        amount_out = BaseUnits(int(row["amount_out"])) if err is None else None
        reason = None if err is None else "slippage_exceeded"
        return Landing("finalized" if final else "confirmed", err, reason, amount_out)


class _Luck:
    """Random numbers for one transaction, drawn from its name; `random.Random` would take 20 times as long to seed."""

    def __init__(self, name: str) -> None:
        self._left = int.from_bytes(hashlib.sha512(name.encode()).digest())

    def randint(self, low: int, high: int) -> int:
        """Return a number from `low` to `high`, both included.

        The digest lasts for six draws of less than 2**64 each.
        """
        self._left, drawn = divmod(self._left, high - low + 1)
        return low + drawn

    def random(self) -> float:
        return self.randint(0, 2**53 - 1) / 2**53


def _set_up(db: sqlite3.Connection) -> None:
    db.execute(_SCHEMA)


def _read_all(db: sqlite3.Connection) -> None:
    found = db.execute("pragma quick_check(1)").fetchone()[0]
    if found != "ok":
        raise TransientError("the ledger of the chain is damaged")


def _find(signature: str, db: sqlite3.Connection) -> dict[str, Any] | None:
    found = db.execute("select * from transactions where signature = ?", (signature,))
    row = found.fetchone()
    return None if row is None else dict(zip((column[0] for column in found.description), row, strict=True))
