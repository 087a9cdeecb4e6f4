"""What docs/how-to/run-in-production.md says about defaults is so."""

import re
from pathlib import Path

from headrace.config import Setting
from headrace.gateway.settings import AdmissionSettings, GatewaySettings

PAGE = (Path(__file__).parents[2] / "docs" / "how-to" / "run-in-production.md").read_text()


def test_the_defaults_are_these() -> None:
    defaults: dict[str, float] = {}
    for section in (GatewaySettings(), AdmissionSettings()):
        for field, hint in type(section).__annotations__.items():
            setting = next(part for part in hint.__metadata__ if isinstance(part, Setting))
            defaults |= dict.fromkeys(setting.env, getattr(section, field))
    told = re.findall(r"^\| [^|]+ \| `(\w+)` \| ([^|]+) \|", PAGE, re.MULTILINE)
    assert len(told) == 10
    for name, default in told:
        number = default.strip().removesuffix(" s").replace(",", "")
        assert defaults[name] == (0 if number == "off" else float(number)), name
