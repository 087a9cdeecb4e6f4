"""Supply the venue of pools with states: from a bank, or from the stream and a node."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from headrace.decoders.registry import Programs
from headrace.model.errors import BadInputError
from headrace.programs.curves import CURVES
from headrace.programs.quoting import Account, Clock, Market, NoQuoteError
from headrace.solana.bank import Bank, Held

POOLS_MAX: Final = 64
"""Maximum number of pools per pair that are asked for a quote."""


class PoolState(NamedTuple):
    """A pool with the accounts that a quote reads, all as of the end of `slot`."""

    key: str
    program: str
    mints: tuple[str, str]
    accounts: Mapping[str, Account]
    clock: Clock
    slot: int | None

    def market(self) -> Market | None:
        """Return the market; None if the accounts give none."""
        try:
            return CURVES[self.program].read(self.key, self.accounts, self.clock)
        except (NoQuoteError, BadInputError):
            return None


class PoolSupply(Protocol):
    """States of pools."""

    async def pools(self, mint_in: str, mint_out: str, through: Sequence[str]) -> list[PoolState]:
        """Return the pools of two mints, and those of either with a mint of `through`.

        Raises TransientError if states can't be had now.
        """

    def revision(self) -> Hashable:
        """Return a value that changes whenever a state may have changed."""

    async def close(self) -> None:
        """Release all resources. Idempotent."""


class BankPools:
    """All pools in a bank, in the state after the last transaction."""

    def __init__(self, bank: Bank, programs: Programs) -> None:
        self._bank, self._programs = bank, programs
        self._known: dict[str, tuple[Held, Account]] = {}

    async def pools(self, mint_in: str, mint_out: str, through: Sequence[str]) -> list[PoolState]:
        accounts, clock = self._accounts(), Clock(*self._bank.clock)
        wanted = {mint_in, mint_out, *through}
        found: dict[frozenset[str], list[PoolState]] = {}
        for key, account in accounts.items():
            curve = CURVES.get(account.program)
            if curve is None or account.name != curve.account:
                continue
            try:
                mints = curve.mints(key, account, accounts)
            except BadInputError:
                continue
            if mints is not None and wanted.issuperset(mints) and {mint_in, mint_out} & set(mints):
                pools = found.setdefault(frozenset(mints), [])
                if len(pools) < POOLS_MAX:
                    pools.append(PoolState(key, account.program, mints, accounts, clock, clock.slot))
        return [pool for pools in found.values() for pool in pools]

    def revision(self) -> Hashable:
        return self._bank.revision

    async def close(self) -> None:
        """Do nothing: other parts of this process may use the bank."""

    def _accounts(self) -> dict[str, Account]:
        """Return all accounts of the bank; accounts that have changed are decoded again."""
        accounts = {}
        for key, held in self._bank.accounts().items():
            known = self._known.get(key)
            if known is None or known[0].data != held.data or known[0].owner != held.owner:
                decoded = self._programs.account(held.owner, held.data)
                known = self._known[key] = held, Account.of(held.owner, held.data, decoded)
            accounts[key] = known[1]
        return accounts
