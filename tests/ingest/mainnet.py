"""The mainnet material of tests/data as updates."""

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from headrace.model.updates import AccountUpdate, LogsUpdate, TransactionUpdate
from headrace.programs.register import EVENTS
from headrace.solana.notifications import update_from_notification
from headrace.solana.transactions import transaction_from_rpc
from headrace.solana.yellowstone_json import transaction_from_yellowstone_json

DATA = Path(__file__).parents[1] / "data" / "mainnet"
READERS = {key: facts.trade for key, facts in EVENTS.items() if facts.trade is not None}
"""(program, event) → the reader of its swap."""

PUMP = "6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"


@cache
def index() -> dict[str, dict[str, Any]]:
    """What the collection says of each transaction, by the first letters of its file's name."""
    return {Path(entry["file"]).stem: entry for entry in json.loads((DATA / "INDEX.json").read_bytes())}


def landed(
    folders: tuple[str, ...] = ("transactions", "yellowstone_txupdates", "local_bank"),
) -> Iterator[tuple[str, TransactionUpdate]]:
    """Every executed transaction, and the name of its file."""
    for folder in folders:
        for path in sorted((DATA / folder).glob("*.json")):
            told = json.loads(path.read_bytes())
            if folder == "yellowstone_txupdates":
                yield path.stem, transaction_from_yellowstone_json(told, source="grpc-0", feed="all", received_ns=0)
            else:
                yield (
                    path.stem,
                    transaction_from_rpc(told.get("result", told), source="rpc-0", feed="all", received_ns=0),
                )


@cache
def transaction(prefix: str) -> TransactionUpdate:
    """The one whose signature begins so."""
    return next(update for name, update in landed() if name.startswith(prefix))


def logs_view(update: TransactionUpdate, feed: str = f"logs:{PUMP}") -> LogsUpdate:
    """The same transaction as `logsSubscribe` tells it."""
    return LogsUpdate(
        source="rpc-1",
        feed=feed,
        received_ns=0,
        slot=update.slot,
        signature=update.signature,
        err=update.err,
        logs=update.logs or (),
    )


def account_updates() -> Iterator[AccountUpdate]:
    for line in (DATA / "pubsub" / "programNotification.projected.jsonl").read_bytes().splitlines():
        frame = msgspec.json.decode(line)
        owner = frame["params"]["result"]["value"]["account"]["owner"]
        update = update_from_notification(frame, source="rpc-0", feed=f"program:{owner}", received_ns=0)
        assert isinstance(update, AccountUpdate)
        yield update
