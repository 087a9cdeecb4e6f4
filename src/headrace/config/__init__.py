"""Settings from environment, `.env` and `headrace.toml`: checked at the start, and some of them changed while running.

Each adapter declares its settings next to its code, as a frozen `msgspec.Struct` whose fields have a `Setting`. This
package imports no adapter: `load` receives the settings types as named sections and returns a `Config`.
"""

from headrace.config.core import CORE_SECTIONS, CoreSettings, Features
from headrace.config.effective import Change, Config, Row, WrongSettings, load
from headrace.config.inputs import Inputs, Origin
from headrace.config.render import render
from headrace.config.setting import SameAs, Setting

__all__ = [
    "CORE_SECTIONS",
    "Change",
    "Config",
    "CoreSettings",
    "Features",
    "Inputs",
    "Origin",
    "Row",
    "SameAs",
    "Setting",
    "WrongSettings",
    "load",
    "render",
]
