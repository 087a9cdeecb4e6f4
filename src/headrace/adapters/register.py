"""A register: adapters of one port by name, imported when first used, opened with the settings of their own section."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, cast

import msgspec

from headrace.adapters.context import Context
from headrace.config import Config
from headrace.model.errors import ConfigError

P = TypeVar("P")


class Adapter(Protocol):
    """Class that a register names. `Settings` are the adapter's own; each field carries a `Setting`.

    The section of the settings file is `ROOM.NAME`, after the register's room and the adapter's name there
    (`[venues.raydium]`), unless the class has a `SECTION` that says another. Adapters of one register may share a
    `Settings` type, and then share a section. A `Settings` type may extend the settings of the port: the inherited
    fields are then those of the port's section.

    The module of an adapter is imported to read its settings, also where another adapter is chosen.
    """

    Settings: ClassVar[type[msgspec.Struct]]

    @classmethod
    async def open(cls, settings: Any, context: Context) -> Self:
        """Return the adapter, ready for use.

        Raises ConfigError for settings that can't be used, and TransientError for a server or file that is away,
        unless `context.patience` takes that.
        """


class Register(Mapping[str, str], Generic[P]):
    """Adapters of the port `P`: name → "module:Class".

    With `settings`, all adapters have these, which are a section of the port's own; no module of an adapter that is not
    chosen is imported then.
    """

    def __init__(self, room: str, entries: Mapping[str, str], settings: type[msgspec.Struct] | None = None) -> None:
        self.room, self.settings = room, settings
        self._entries = MappingProxyType(dict(entries))

    def __getitem__(self, name: str) -> str:
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def adapter(self, name: str, *, key: str = "", given: str = "", origin: str = "") -> type[Adapter]:
        """Return the class called `name`.

        Raises ConfigError for a name that is not in the register, or whose packages are not installed: as the setting
        `key` (default: the room) with the value `given` (default: the name).
        """
        key, given = key or self.room, given or name
        if name not in self._entries:
            raise ConfigError(key, given, f"one of {', '.join(sorted(self._entries))}", origin=origin)
        try:
            return cast("type[Adapter]", load_class(self._entries[name]))
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == __name__.partition(".")[0]:
                raise
            raise ConfigError(key, given, f"in a clone: pip install '.[{name}]' first", origin=origin) from error

    def sections(self) -> dict[str, type[msgspec.Struct]]:
        """Return the sections that the adapters have of their own, of those whose packages are installed."""
        if self.settings is not None:
            return {}
        found = {}
        for name in self._entries:
            try:
                adapter = self.adapter(name)
            except ConfigError:
                continue
            found[str(getattr(adapter, "SECTION", f"{self.room}.{name}"))] = adapter.Settings
        return found

    async def open(self, name: str, config: Config, context: Context, *, key: str = "") -> P:
        """Return the adapter called `name`, opened with its settings. Raises as `adapter` and `Adapter.open` do."""
        adapter = self._configured(name, config, key)
        return cast("P", await adapter.open(config.section(adapter.Settings), context))

    async def open_with(
        self, settings: msgspec.Struct, name: str, config: Config, context: Context, *, key: str = ""
    ) -> P:
        """Return the adapter called `name`, opened with other settings than the configured ones; else as `open`."""
        return cast("P", await self._configured(name, config, key).open(settings, context))

    def _configured(self, name: str, config: Config, key: str) -> type[Adapter]:
        return self.adapter(name, key=key, origin=str(config.origins[key]) if key in config.origins else "")


def load_class(target: str) -> Any:
    """Return the class (or function) that `module:Name` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
