"""A register: the adapters of one port by name, imported at first use, opened with the settings of their section."""

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
    """Class that a register names. `Settings` is its settings type, each field with a `Setting`.

    The section in the settings file is `ROOM.NAME`: the register's `room` and the adapter's name in it
    (`[venues.raydium]`). If the class has a `SECTION`, that is its section instead. Adapters of one register may share
    a `Settings` type, and then share its section. A `Settings` type may extend the settings type of the port. Inherited
    fields then belong to the port's section.
    The module of an adapter is imported to read its settings, even if another adapter is chosen.
    """

    Settings: ClassVar[type[msgspec.Struct]]

    @classmethod
    async def open(cls, settings: Any, context: Context) -> Self:
        """Return the adapter, ready for use.

        Raises ConfigError for settings that can't be used. Raises TransientError if the server or file can't be
        reached, unless `context.patience` is given, which is then called with that error.
        """


class Register(Mapping[str, str], Generic[P]):
    """Adapters of the port `P`: name → "module:Class".

    With `settings`, all adapters have this settings type, whose section belongs to the port. Modules of adapters that
    are not chosen are then not imported.
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

        Raises ConfigError for a name that is not in the register, or whose packages are not installed. The error names
        the setting `key` (default: the register's `room`) and the value `given` (default: `name`).
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

    def section(self, name: str) -> str:
        """Return the section of the adapter called `name`. Raises the same errors as `adapter`."""
        return str(getattr(self.adapter(name), "SECTION", f"{self.room}.{name}"))

    def sections(self) -> dict[str, type[msgspec.Struct]]:
        """Return section → settings type of every adapter whose packages are installed.

        Empty if the port itself has `settings`.
        """
        if self.settings is not None:
            return {}
        found = {}
        for name in self._entries:
            try:
                found[self.section(name)] = self.adapter(name).Settings
            except ConfigError:
                continue
        return found

    async def open(self, name: str, config: Config, context: Context, *, key: str = "") -> P:
        """Return the adapter called `name`, opened with its settings.

        Raises the errors of `adapter` and `Adapter.open`.
        """
        adapter = self._configured(name, config, key)
        return cast("P", await adapter.open(config.section(adapter.Settings), context))

    async def open_with(
        self, settings: msgspec.Struct, name: str, config: Config, context: Context, *, key: str = ""
    ) -> P:
        """Return the adapter called `name`, opened with `settings` in place of the configured settings.

        Raises the same errors as `open`.
        """
        return cast("P", await self._configured(name, config, key).open(settings, context))

    def _configured(self, name: str, config: Config, key: str) -> type[Adapter]:
        return self.adapter(name, key=key, origin=str(config.origins[key]) if key in config.origins else "")


def load_class(target: str) -> Any:
    """Return the class (or function) that `module:Name` names."""
    module, _, name = target.partition(":")
    return getattr(import_module(module), name)
