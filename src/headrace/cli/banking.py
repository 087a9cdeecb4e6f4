"""`headrace bank clone`: writes the accounts and programs of pools from a node to a bank file."""

import argparse
import asyncio
from pathlib import Path
from typing import Any

import msgspec

from headrace.decoders.registry import Programs
from headrace.model.errors import BadInputError
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import SystemClock
from headrace.solana.rpc import Rpc, RpcSettings
from headrace.venues.cloning import clone_bank


def clone(arguments: argparse.Namespace) -> int:
    """Write the bank file and print its contents. Raises BadInputError if the file exists, or for a wrong pool."""
    path: Path = arguments.out
    if path.exists():
        raise BadInputError("file exists", f"{path}, expected a new file")
    bank = asyncio.run(_read(arguments))
    path.write_bytes(msgspec.json.encode(bank))
    programs, slot = len(bank["programs"]), bank["captured"]["slot"]
    print(f"{path}: {len(bank['accounts'])} accounts and {programs} programs, as of slot {slot}")
    return 0


async def _read(arguments: argparse.Namespace) -> dict[str, Any]:
    programs = await asyncio.to_thread(Programs.load)
    rpc = Rpc([arguments.url], clock=SystemClock(), settings=RpcSettings(), breakers=[Breaker()])
    try:
        return await clone_bank(rpc, programs, arguments.pool, arguments.mint)
    finally:
        await rpc.aclose()
