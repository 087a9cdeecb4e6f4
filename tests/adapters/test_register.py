"""A register opens an adapter by name with the settings of the adapter's own section, and names what it knows."""

from typing import Annotated, ClassVar, Protocol, Self

import msgspec
import pytest

from headrace.adapters import Context, Register
from headrace.config import Config, Setting
from headrace.decoders.registry import Programs
from headrace.model.errors import ConfigError
from headrace.runtime.clock import ManualClock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc, RpcSettings


class Market(Protocol):
    fee_bps: int


class OwnSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    fee_bps: Annotated[int, Setting("fee", env=("OWN_FEE",))] = 25


class Own:
    Settings: ClassVar = OwnSettings

    def __init__(self, fee_bps: int, clock: object) -> None:
        self.fee_bps, self.clock = fee_bps, clock

    @classmethod
    async def open(cls, settings: OwnSettings, context: Context) -> Self:
        return cls(settings.fee_bps, context.clock)


class Elsewhere(Own):
    SECTION = "elsewhere"


HERE = f"{__name__}:Own"
MARKETS = Register[Market]("markets", {"own": HERE})


@pytest.fixture
def context() -> Context:
    clock, metrics = ManualClock(), Metrics()
    rpc = Rpc(["http://127.0.0.1:1"], clock=clock, settings=RpcSettings(), breakers=[])
    return Context(
        clock=clock,
        metrics=metrics,
        health=Health(clock),
        tasks=Supervisor(clock),
        rpc=rpc,
        programs=Programs.load,
        resolve=str,
        generation="gen",
    )


def test_an_adapter_has_a_section_of_its_room_and_name_or_one_that_its_class_says() -> None:
    assert MARKETS.sections() == {"markets.own": OwnSettings}
    assert Register("markets", {"own": f"{__name__}:Elsewhere"}).sections() == {"elsewhere": OwnSettings}


async def test_an_adapter_is_opened_with_its_own_settings_and_the_context(context: Context) -> None:
    config = Config(MARKETS.sections(), {"OWN_FEE": "7"}, None, None)
    market = await MARKETS.open("own", config, context)
    assert isinstance(market, Own)
    assert (market.fee_bps, market.clock) == (7, context.clock)


async def test_an_unknown_name_is_refused_with_the_known_names(context: Context) -> None:
    config = Config(MARKETS.sections(), {}, None, None)
    with pytest.raises(ConfigError, match=r"orders\.markets: got other, expected one of own"):
        await MARKETS.open("other", config, context, key="orders.markets")


def test_an_adapter_whose_package_is_missing_is_refused_when_chosen_and_has_no_section() -> None:
    register = Register[Market]("markets", {"own": HERE, "away": "package_that_is_missing:Market"})
    assert list(register.sections()) == ["markets.own"]
    with pytest.raises(ConfigError, match=r"pip install '\.\[away\]' first"):
        register.adapter("away")


def test_a_register_line_that_names_a_missing_module_of_headrace_is_a_defect() -> None:
    with pytest.raises(ModuleNotFoundError):
        Register[Market]("markets", {"own": "headrace.venues.missing:Market"}).sections()
