"""How many examples Hypothesis tries: all under the profile `thorough`, a quarter of them under `quick`."""

from typing import Final

from hypothesis import settings

QUICK: Final = 4


def examples(thorough: int) -> int:
    """Return how many of so many examples the profile in force tries, at least one."""
    return thorough if settings.get_current_profile_name() == "thorough" else max(1, thorough // QUICK)
