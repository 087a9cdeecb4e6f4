"""Adapter by which the source registry opens the Yellowstone source, if the source's packages are installed."""

from importlib.util import find_spec
from typing import ClassVar, Final

from headrace.adapters import Context, load_class
from headrace.model.errors import ConfigError
from headrace.runtime.breaker import Breaker
from headrace.sources import Source
from headrace.sources.yellowstone.settings import YellowstoneSettings

_PACKAGES: Final = {"google.protobuf": "protobuf", "grpc": "grpcio", "hpack": "hpack"}


class Yellowstone:
    """Adapter of the Yellowstone source. Its settings can be read without the packages that the source needs."""

    Settings: ClassVar[type[YellowstoneSettings]] = YellowstoneSettings
    SECTION: ClassVar[str] = "yellowstone"

    @classmethod
    async def open(cls, settings: YellowstoneSettings, context: Context) -> Source:
        """Return the source, which connects only when it runs. Raises ConfigError if packages are missing."""
        cls.check_packages()
        source: Source = load_class("headrace.sources.yellowstone.source:YellowstoneSource")(
            settings,
            clock=context.clock,
            metrics=context.metrics,
            health=context.health,
            rpc=context.rpc,
            resolve=context.resolve,
            breakers=[Breaker() for _ in settings.urls],
        )
        return source

    @classmethod
    def check_settings(cls, settings: YellowstoneSettings) -> None:
        """Raise ConfigError for filters that can't be read, and without endpoints."""
        if not settings.urls:
            raise ConfigError("YELLOWSTONE_URLS", "nothing", "at least one http:// or https:// URL")
        cls.check_packages()
        load_class("headrace.sources.yellowstone.filters:parse_filters")(settings.filters)

    @classmethod
    def check_packages(cls) -> None:
        """Raise ConfigError if packages are missing; the error says how to install them."""
        missing = [package for module, package in _PACKAGES.items() if not _is_installed(module)]
        if missing:
            given = f"endpoints, but not installed: {', '.join(missing)}"
            raise ConfigError("YELLOWSTONE_URLS", given, "in a clone: pip install '.[yellowstone]' first")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False
