"""Brings the databases that the settings name up to date, without a service."""

from collections.abc import AsyncIterator
from typing import Any

from headrace.adapters import Register
from headrace.config import Config, Features
from headrace.history import HistorySettings
from headrace.inbox import InboxSettings
from headrace.model.errors import TransientError
from headrace.orders.settings import ExecutionSettings
from headrace.runtime.clock import Clock
from headrace.runtime.metrics import Metrics
from headrace.service.settings import REGISTERS, Registers
from headrace.service.worker import lend


async def migrate(config: Config, clock: Clock, registers: Registers = REGISTERS) -> AsyncIterator[str]:
    """Create or migrate the tables of orders, inboxes and history; yield a line for each that is up to date.

    What the settings switch off is left out. Raises ConfigError for a database of a newer version, and TransientError
    for a database that is unavailable, or whose history another process writes.
    """
    wanted: list[tuple[str, Register[Any], ExecutionSettings | InboxSettings | HistorySettings]] = [
        ("inboxes", registers.inboxes, config.section(InboxSettings))
    ]
    if (orders := config.section(ExecutionSettings)).enabled:
        wanted.insert(0, ("orders", registers.stores, orders))
    if config.section(Features).history:
        wanted.append(("history", registers.histories, config.section(HistorySettings)))
    async with lend(config, clock, Metrics(), registers=registers) as context:
        for name, register, settings in wanted:
            place = settings.place
            try:
                adapter = await register.open_with(settings, place.kind, config, context, key="core.database_url")
            except TransientError as error:
                remedy = "; if a server runs here, stop it first" if name == "history" else ""
                raise TransientError(f"{name}: {place.file or place.kind}: {error}{remedy}") from error
            await adapter.close()
            yield f"{name}: {place.file or place.kind} is up to date"
