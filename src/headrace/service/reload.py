"""Settings while a process runs: changes are applied, and settings that deliver less than expected are logged."""

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from headrace.config import Config, CoreSettings
from headrace.decoders.registry import Programs
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.server import Gateway
from headrace.gateway.settings import TlsSettings
from headrace.ingest.log_lines import lacks_of
from headrace.runtime import log
from headrace.runtime.clock import Clock
from headrace.runtime.watch import watch
from headrace.service.settings import Registers
from headrace.sources.settings import NodeSourceSettings
from headrace.sources.subscriptions import parse_all

_log = structlog.get_logger("app")


class LiveSettings:
    """Checks the subscriptions of the settings, applies changed settings, and logs warnings about them.

    `resolve` returns a program's id by name. With `play`, the subscriptions are not used: a recording is played.

    Raises ConfigError for wrong subscriptions now, not only when the stream is switched on.
    """

    def __init__(
        self, config: Config, registers: Registers, programs: Programs, resolve: Callable[[str], str], *, play: bool
    ) -> None:
        self._config, self._registers, self._programs, self._resolve = config, registers, programs, resolve
        self._play = play
        for settings in registers.subscribed(config):
            self._check_subscriptions(settings)

    def report(self) -> None:
        """Log what is missing in the settings, or set without effect."""
        for warning in self._config.warnings:
            _log.warning("settings_warning", warning=warning)
        for warning in self._programs.warnings:
            _log.warning("idl_warning", warning=warning)
        core = self._config.section(CoreSettings)
        if (auth := self._config.section(AuthSettings)).mode == "off" and (auth.jwt_secret or auth.jwks_url):
            _log.warning("authentication_not_used", meaning="keys for tokens are set, but AUTH_MODE is off")
        if self._play:
            return
        for settings in self._registers.subscribed(self._config):
            self._warn_of_log_lines(settings)
        kind = self._registers.bus_kind(self._config)
        if kind == "memory" and core.redis_url:
            _log.warning(
                "redis_not_used", meaning="REDIS_URL is set, but MESSAGE_BROKER_ENABLED or BUS_KIND says memory"
            )
        if kind == "redis" and not core.database_url:
            meaning = "orders and messages to users are in files of one folder; DATABASE_URL shares them everywhere"
            _log.warning("database_not_shared", meaning=meaning)

    async def follow(self, clock: Clock, gateway: Gateway | None) -> None:
        """Apply changes made on SIGHUP or in a file, all or nothing."""
        for settings in self._registers.subscribed(self._config):
            self._config.on_change(type(settings), lambda _, new: self._check_subscriptions(new))
            self._config.on_change(type(settings), lambda _, new: self._warn_of_log_lines(new))
        self._config.on_change(CoreSettings, lambda _, new: log.set_level(new.log_level))
        paths = [*self._config.paths, *self._config.section(TlsSettings).paths()]
        paths += self._config.section(AuthSettings).paths()
        async with contextlib.aclosing(watch(paths, clock)) as changes:
            async for _ in changes:
                if gateway is not None:
                    await asyncio.to_thread(gateway.reload_certificate)
                    await gateway.reload_keys()
                change = self._config.reload(await asyncio.to_thread(self._config.read))
                for warning in change.warnings:
                    _log.warning("settings_warning", warning=warning)
                for error in change.errors:
                    _log.error("settings_refused", error=str(error), effect="the former settings stay in force")
                if change.needs_restart:
                    _log.warning("settings_need_restart", keys=", ".join(change.needs_restart))
                if change.applied:
                    _log.info("settings_applied", keys=", ".join(change.applied))

    def _check_subscriptions(self, settings: NodeSourceSettings) -> None:
        """Raise ConfigError for wrong subscriptions now, not only when the stream is switched on."""
        parse_all(settings.subscriptions, self._resolve)

    def _warn_of_log_lines(self, settings: NodeSourceSettings) -> None:
        """Log the subscriptions that deliver less than may be expected, and which kind would deliver the rest."""
        if self._play:
            return
        wanted = parse_all(settings.subscriptions, self._resolve)
        for lack in lacks_of((each.kind, self._programs.name_of(each.key)) for each in wanted):
            _log.warning("subscription_lacks_trades", **lack._asdict())
