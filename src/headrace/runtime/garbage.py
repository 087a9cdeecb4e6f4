"""Tunes Python's cycle collector for a process that makes millions of short-lived objects without cycles."""

import gc
from typing import Final

YOUNG_MAX: Final = 2_000
"""Containers made and not yet freed before the collector looks at them: a millisecond; Python's own default is 700."""

YOUNG_LOOKS: Final = 250
"""Looks at young containers before one at what these looks left: half a million containers; Python's own is 10."""


def settle() -> None:
    """Call once, when what lives as long as the process is built: it is not looked at again.

    Messages, requests and connections hold no cycles: these are freed by counting references, and looking for cycles
    among them is in vain. Few containers a look make short pauses; few looks at old ones make long pauses rare.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_MAX, YOUNG_LOOKS, 10)
