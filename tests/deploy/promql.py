"""Names and labels that expressions of Prometheus use, as far as our rules and dashboards write them."""

import re
from typing import Final, NamedTuple

DEPLOY_LABELS: Final = frozenset({"instance", "job"})
"""Labels that Prometheus adds to what it scrapes."""

_SELECTOR: Final = re.compile(r"\b(up|(?:headrace|process|python)_\w+)(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'(\w+)\s*(=~|!=|!~|=)\s*"([^"]*)"')
_GROUPING: Final = re.compile(r"\b(?:by|on|ignoring|without)\s*\(([^)]*)\)")


class Used(NamedTuple):
    """Metric → its labels and their values as matchers name them; and labels that results are grouped by."""

    matched: dict[str, dict[str, set[str]]]
    grouped: set[str]


def used_by(expression: str) -> Used:
    """Return what an expression uses. A regular expression gives its alternatives; `$variables` are not."""
    matched: dict[str, dict[str, set[str]]] = {}
    for name, matchers in _SELECTOR.findall(expression):
        labels = matched.setdefault(name, {})
        for label, _, value in _MATCHER.findall(matchers):
            labels.setdefault(label, set()).update(each for each in value.split("|") if not each.startswith("$"))
    grouped = {label.strip() for group in _GROUPING.findall(expression) for label in group.split(",")}
    return Used(matched, grouped)


class Exported(NamedTuple):
    """Exports of a server: metric (as in samples) → label → values; and all names, with or without samples."""

    names: set[str]
    labels: dict[str, dict[str, set[str]]]

    def labels_of(self, name: str) -> dict[str, set[str]]:
        return self.labels.get(name, {})


def read_exposition(text: str) -> Exported:
    """Read Prometheus text. A histogram's name gives also those of its samples."""
    names: set[str] = set()
    labels: dict[str, dict[str, set[str]]] = {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            name, kind = line.split()[2:4]
            names |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
        elif line and not line.startswith("#"):
            found = re.match(r"(\w+)(?:\{(.*)\})? ", line)
            assert found is not None, line
            shown = labels.setdefault(found[1], {})
            for label, _, value in _MATCHER.findall(found[2] or ""):
                shown.setdefault(label, set()).add(value)
    return Exported(names, labels)
