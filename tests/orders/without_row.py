"""A plugin of pytest that takes one row out of the orders table before anything reads it: `STATUS-kind` in WITHOUT_ROW.

For the long test that holds the contract suite against a machine with a hole.
"""

import os
from types import MappingProxyType

from headrace.orders import machine

if row := os.environ.get("WITHOUT_ROW"):
    left = {(status, kind): to for (status, kind), to in machine.ORDERS.items() if f"{status}-{kind}" != row}
    assert len(left) == len(machine.ORDERS) - 1, f"no row {row}"
    vars(machine)["ORDERS"] = MappingProxyType(left)
