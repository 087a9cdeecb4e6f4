"""A small model of a chain for scripted nodes: slots with parents and forks, transactions, accounts, commitments."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pybase64

from headrace.model.keys import SYSTEM_PROGRAM, b58decode, b58encode
from headrace.model.updates import Commitment, TxError

_PAYER = "4uQeVj5tqViQh7yWWGStvkEG1Zmhx6uasJtWCJziofM"


@dataclass
class Landed:
    """A transaction in a slot. `result` is the answer of `getTransaction`."""

    signature: str
    slot: int
    mentions: tuple[str, ...]
    logs: tuple[str, ...]
    err: TxError
    result: dict[str, Any]


@dataclass
class Account:
    """Newest state of an account."""

    owner: str
    data: bytes
    lamports: int
    executable: bool = False


@dataclass
class Ledger:
    """A tree of blocks. `head` is the tip that the node follows. The chain is the head and all blocks below it.

    A slot is confirmed once `confirm_lag` blocks are above it, and finalized (the root) once `root_lag` blocks are.
    """

    head: int = 1000
    confirm_lag: int = 2
    root_lag: int = 32
    parents: dict[int, int] = field(default_factory=dict)
    landed: dict[int, list[Landed]] = field(default_factory=dict)
    by_signature: dict[str, Landed] = field(default_factory=dict)
    accounts: dict[str, Account] = field(default_factory=dict)
    first_available: int = 0
    _made: int = 0

    def __post_init__(self) -> None:
        self.parents.setdefault(self.head, self.head - 1)

    def advance(self, *, parent: int | None = None, skip: int = 0) -> int:
        """Begin the next slot, `skip` slots later, on top of `parent` (default: the head). Return its number."""
        slot = max(self.parents) + 1 + skip
        self.parents[slot] = self.head if parent is None else parent
        self.head = slot
        return slot

    def parent(self, slot: int) -> int:
        return self.parents.get(slot, slot - 1)

    def chain(self, commitment: Commitment) -> list[int]:
        """Return the slots with a block that have reached `commitment`, newest first."""
        lag = {"processed": 0, "confirmed": self.confirm_lag, "finalized": self.root_lag}[commitment]
        slots, slot = [], self.head
        while slot in self.parents:
            slots.append(slot)
            slot = self.parents[slot]
        return slots[lag:]

    def tip(self, commitment: Commitment) -> int:
        """Return the newest slot that has reached `commitment`."""
        return next(iter(self.chain(commitment)), min(self.parents))

    def land(
        self,
        mentions: Sequence[str],
        logs: Sequence[str] = (),
        *,
        err: TxError = None,
        signature: str | None = None,
        slot: int | None = None,
        result: dict[str, Any] | None = None,
    ) -> Landed:
        """Put a transaction into `slot` (default: the head).

        Without `result`, a small legacy transaction is generated.
        """
        slot = self.head if slot is None else slot
        self._made += 1
        signature = signature or made_up_signature(self._made)
        result = {**result, "slot": slot} if result else _transaction_json(signature, slot, mentions, logs, err)
        landed = Landed(signature, slot, tuple(mentions), tuple(logs), err, result)
        self.landed.setdefault(slot, []).append(landed)
        self.by_signature[signature] = landed
        return landed

    def signatures_for(
        self, address: str, commitment: Commitment, *, before: str | None, until: str | None, limit: int
    ) -> list[Landed]:
        """Return the answer of `getSignaturesForAddress`: on the chain, newest first; empty if `before` is unknown."""
        newest_first = [
            landed
            for slot in self.chain(commitment)
            if slot >= self.first_available
            for landed in reversed(self.landed.get(slot, []))
            if address in landed.mentions
        ]
        signatures = [landed.signature for landed in newest_first]
        if before is not None and before not in signatures:
            return []
        start = 0 if before is None else signatures.index(before) + 1
        end = signatures.index(until) if until in signatures else len(signatures)
        return newest_first[start:end][:limit]

    def transaction(self, signature: str, commitment: Commitment) -> Landed | None:
        """Return a transaction that is on the chain, has reached `commitment` and is still stored; otherwise None."""
        landed = self.by_signature.get(signature)
        if landed is None or landed.slot < self.first_available or landed.slot not in self.chain(commitment):
            return None
        return landed


def made_up_signature(number: int) -> str:
    """Return a well-formed signature. The same `number` gives the same signature."""
    return b58encode(hashlib.sha512(b"headrace signature %d" % number).digest())


def made_up_key(name: str) -> str:
    """Return a well-formed public key. The same `name` gives the same key."""
    return b58encode(hashlib.sha256(b"headrace key " + name.encode()).digest())


def _transaction_json(
    signature: str, slot: int, mentions: Sequence[str], logs: Sequence[str], err: TxError
) -> dict[str, Any]:
    """Return a legacy transaction in base64, with one instruction of the program that is first in `mentions`."""
    keys = [_PAYER, *(key for key in dict.fromkeys(mentions) if key != _PAYER)]
    if len(keys) == 1:
        keys.append(SYSTEM_PROGRAM)
    message = bytes([1, 0, len(keys) - 1, len(keys)]) + b"".join(map(b58decode, keys)) + bytes(32)
    wire = bytes([1]) + b58decode(signature) + message + bytes([1, 1, 0, 0])
    balances = [0] * len(keys)
    meta: dict[str, Any] = {
        "err": err,
        "fee": 5000,
        "innerInstructions": [],
        "loadedAddresses": {"readonly": [], "writable": []},
        "logMessages": list(logs),
        "postBalances": balances,
        "postTokenBalances": [],
        "preBalances": balances,
        "preTokenBalances": [],
        "rewards": [],
        "computeUnitsConsumed": 0,
    }
    encoded = [pybase64.b64encode_as_string(wire), "base64"]
    return {"slot": slot, "blockTime": None, "meta": meta, "transaction": encoded, "version": "legacy"}
