"""Checks the settings of a server against the files that they name, before anything is opened."""

from collections.abc import Callable, Iterator
from functools import partial

from headrace.config import Config, Features
from headrace.cores import open_core
from headrace.gateway.auth.authenticator import check_keys_file
from headrace.gateway.auth.settings import AuthSettings
from headrace.gateway.door.admission import Admission
from headrace.gateway.settings import AdmissionSettings, TlsSettings
from headrace.gateway.transports.tls import Certificate
from headrace.model.errors import ConfigError
from headrace.orders.limits import AmountLimits
from headrace.orders.settings import ExecutionSettings
from headrace.runtime.clock import SystemClock
from headrace.service.orders import check_files
from headrace.service.settings import ProgramSettings, Registers
from headrace.service.updates import load_programs, new_resolver
from headrace.sources.subscriptions import parse_all


def find_errors(config: Config, registers: Registers) -> list[ConfigError]:
    """Return what a server would refuse in these settings. Reads the files that they name, and opens nothing else."""
    found = []
    for check in _checks(config, registers):
        try:
            check()
        except ConfigError as error:
            found.append(error)
    return found


def _checks(config: Config, registers: Registers) -> Iterator[Callable[[], object]]:
    yield partial(registers.check, config)
    yield partial(registers.rpc_urls, config)
    yield partial(registers.check_adapters, config)
    yield partial(_check_programs, config, registers)
    yield partial(check_files, config, registers)
    if config.section(Features).gateway:
        yield partial(Admission, SystemClock(), config.section(AdmissionSettings))
        if config.section(TlsSettings).paths():
            yield partial(Certificate, config.section(TlsSettings))
        yield partial(check_keys_file, config.section(AuthSettings))
    if (orders := config.section(ExecutionSettings)).enabled:
        yield partial(AmountLimits.parse, orders.amount_limits)


def _check_programs(config: Config, registers: Registers) -> None:
    """Raise ConfigError for a wrong layout, core or subscription."""
    programs = load_programs(config)
    open_core(config.section(ProgramSettings).core, programs)
    for settings in registers.subscribed(config):
        parse_all(settings.subscriptions, new_resolver(config, lambda: programs))
