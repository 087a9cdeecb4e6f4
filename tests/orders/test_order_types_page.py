"""The how-to page lists every order type of the register with its fields."""

import sys
from pathlib import Path
from typing import Final

from headrace.order_types import ORDER_TYPES
from headrace.order_types.register import fields_by_type, order_type

PAGE: Final = Path(__file__).parents[2] / "docs" / "how-to" / "place-orders.md"
_BEGIN: Final = "test_order_types_page`. -->\n"
_END: Final = "<!-- End of the part that is made. -->\n"


def written(page: str) -> str:
    """The page with the table made anew between the marks."""
    head, begin, rest = page.partition(_BEGIN)
    _, end, tail = rest.partition(_END)
    rows = ["| `type` | field | |", "|---|---|---|"]
    for name, fields in fields_by_type().items():
        about = str(sys.modules[type(order_type(name)).__module__].__doc__).partition(": ")[2].splitlines()[0]
        rows.append(f"| `{name}` | | {about} |")
        rows += [f"| | `{field.name}` | {field.about} |" for field in fields]
    return f"{head}{begin}\n" + "\n".join(rows) + f"\n\n{end}{tail}"


def test_the_page_has_every_type_and_field() -> None:
    page = PAGE.read_text()
    assert page == written(page), "run: python -m tests.orders.test_order_types_page"
    assert all(f"`{name}`" in page for name in ORDER_TYPES)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text()))
