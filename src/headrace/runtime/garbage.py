"""Tunes Python's cycle collector for a process that makes millions of short-lived objects without cycles."""

import gc
from typing import Final

YOUNG_MAX: Final = 50_000
"""Most new containers that are not yet freed before the collector runs; Python's own default is 700."""


def settle() -> None:
    """Exclude all objects that exist now from collection. Call once, after the long-lived objects were built.

    Messages hold no cycles, so reference counting frees them, and a search for cycles among them finds nothing.
    Measured with `headrace bench pipeline`: a fifth less CPU per account update.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 10, 10)
