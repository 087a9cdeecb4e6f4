"""Builds src/headrace/data/demo.hrec from the mainnet material beside this file: `python -m tests.data.make_demo`.

Real: every transaction and account in it, their slots and their order. Made up: when they arrive. Years of chain are
re-spaced to one lap of half a minute, and each slot is told as processed, confirmed and finalized.
"""

import sys
from collections import defaultdict
from pathlib import Path

import msgspec
from tests.ingest.mainnet import account_updates, landed

from headrace.decoders.events import events_of
from headrace.decoders.registry import Programs
from headrace.model.updates import AccountUpdate, AnyUpdate, SlotStatus, SlotUpdate, TransactionUpdate
from headrace.sources.recording_file import RecordingHeader, encode_block, encode_header, encode_update

OUTPUT = Path(__file__).parents[2] / "src" / "headrace" / "data" / "demo.hrec"
SOURCE = "demo"

PUMP = "logs:6EF8rrecthR5Dkzon8Nwu78hRvfCKubJ14M5uBEwF6P"
"""Who follows this program alone, as the examples do, should not wait long for the next trade."""
PUMP_MS = 1_000
TRANSACTION_MS = 350
ACCOUNT_MS = 20
CONFIRMED_MS = 700
FINALIZED_MS = 4_000
START_NS = 1_792_942_614_000_000_000
"""The block time of the newest transaction."""


def transactions() -> list[TransactionUpdate]:
    """The landed mainnet transactions whose slot is known, each as the feed of its program brings it."""
    programs = Programs.load()
    found = []
    for _, update in landed(("transactions", "yellowstone_txupdates")):
        if update.slot:
            events = events_of(update, programs, failed=True)
            known = [i.program_id for i in update.instructions if i.program_id in programs.by_id]
            feed = f"logs:{events[0].program_id if events else known[0] if known else update.account_keys[-1]}"
            found.append(msgspec.structs.replace(update, source=SOURCE, feed=feed, commitment="processed"))
    return found


def lap() -> list[AnyUpdate]:
    """One lap, in order of arrival."""
    by_slot: dict[int, list[TransactionUpdate | AccountUpdate]] = defaultdict(list)
    for transaction in transactions():
        by_slot[transaction.slot].append(transaction)
    for account in account_updates():
        by_slot[account.slot].append(msgspec.structs.replace(account, source=SOURCE))
    timed: list[tuple[int, AnyUpdate]] = []
    now_ms = 0
    for slot, updates in sorted(by_slot.items()):
        now_ms += ACCOUNT_MS
        timed.append((now_ms, status(slot, "processed")))
        for update in updates:
            now_ms += duration_ms(update)
            timed.append((now_ms, update))
        timed.append((now_ms + CONFIRMED_MS, status(slot, "confirmed")))
        timed.append((now_ms + FINALIZED_MS, status(slot, "finalized")))
    timed.sort(key=lambda each: each[0])
    return [msgspec.structs.replace(update, received_ns=START_NS + at_ms * 1_000_000) for at_ms, update in timed]


def duration_ms(update: TransactionUpdate | AccountUpdate) -> int:
    if isinstance(update, AccountUpdate):
        return ACCOUNT_MS
    return PUMP_MS if update.feed == PUMP else TRANSACTION_MS


def status(slot: int, reached: SlotStatus) -> SlotUpdate:
    return SlotUpdate(source=SOURCE, feed="slots", received_ns=0, slot=slot, status=reached)


def recording() -> bytes:
    header = RecordingHeader(
        id="demo1", started_ns=START_NS, sources=(SOURCE,), about="Solana mainnet 2024-2026, re-spaced; see README.md"
    )
    return encode_header(header) + encode_block([encode_update(u) for u in lap()], level=19) + encode_block(())


if __name__ == "__main__":
    OUTPUT.write_bytes(recording())
    sys.stdout.write(f"{OUTPUT}: {OUTPUT.stat().st_size} bytes\n")
