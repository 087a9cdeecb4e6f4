"""Tunes Python's cycle collector for a process that makes millions of short-lived objects without cycles."""

import gc
from typing import Final

YOUNG_MAX: Final = 50_000
"""Containers made and not yet freed before the collector looks at them; Python's own default is 700."""


def settle() -> None:
    """Call once, when what lives as long as the process is built: it is not looked at again.

    Messages hold no cycles, so they are freed by counting references, and looking for cycles among them is in vain.
    Measured with `headrace bench pipeline`: a fifth less CPU per account update.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, 10, 10)
