"""Chooses which of the given values applies, checks it, and finds names that are not settings. Pure."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec

from headrace.config.fields import Field, keys_of, names_of_files
from headrace.config.inputs import Given, Inputs, Origin
from headrace.config.shapes import RefusedError
from headrace.model.errors import ConfigError
from headrace.model.redact import redact

OWN_PREFIX: Final = "HEADRACE_"
_OF_CLIENTS: Final = frozenset({"HEADRACE_TOKEN"})
"""Variables that `headrace listen` and `headrace orders` read.

A server ignores them, because both may run from one shell.
"""

_NEAR_MISS: Final = 0.85
_SERVICE_LINK: Final = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP)(_\w+)?$")


class Resolved(NamedTuple):
    """Values and origins by key. `errors` lists all errors at once.

    If there is any error, the values must not be used.
    """

    values: dict[str, Any]
    origins: dict[str, Origin]
    errors: tuple[ConfigError, ...]
    warnings: tuple[str, ...]


def resolve(fields: Mapping[str, Field], inputs: Inputs) -> Resolved:
    """Choose each value.

    The environment takes precedence over `.env`, `.env` over `headrace.toml`, and `headrace.toml` over the default. Of
    several environment names of one setting, the first that is set is used.
    """
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    errors = [*inputs.errors, *_unknown_names(fields, inputs)]
    warnings = [*inputs.warnings, *_near_misses(fields, inputs.environment)]
    for key, field in fields.items():
        given = _first_given(field, inputs, warnings)
        origins[key] = given.origin if given else Origin("default")
        try:
            values[key] = field.read(given.value, as_text=given.origin.kind != "toml") if given else field.default()
        except RefusedError:
            shown = field.refused(given.value) if given else "nothing"
            origin = str(given.origin) if given else ""
            errors.append(ConfigError(key, shown, field.expected, origin=origin))
    return Resolved(values, origins, tuple(errors), tuple(warnings))


def build(
    sections: Mapping[str, type[msgspec.Struct]], values: Mapping[str, Any]
) -> tuple[dict[type[msgspec.Struct], msgspec.Struct], list[ConfigError]]:
    """Return the settings of each section, and the errors of their own `__post_init__` checks."""
    built: dict[type[msgspec.Struct], msgspec.Struct] = {}
    errors = []
    for section, struct in sections.items():
        try:
            built[struct] = struct(**{name: values[key] for name, key in keys_of(sections, struct).items()})
        except ConfigError as error:
            errors.append(error)
        except ValueError as error:
            errors.append(ConfigError(section, redact(str(error)), "settings that go together"))
    return built, errors


def _first_given(field: Field, inputs: Inputs, warnings: list[str]) -> Given | None:
    for source in (inputs.environment, inputs.dotenv):
        given = [source[name] for name in field.setting.env if name in source]
        if given:
            first, *others = given
            name = _variable(first)
            warnings.extend(
                f"{name} and {_variable(other)} both set {field.key} and disagree; {name} counts"
                for other in others
                if not _same(field, first.value, other.value)
            )
            return first
    return inputs.toml.get(field.key)


def _same(field: Field, one: str, other: str) -> bool:
    try:
        return bool(field.read(one, as_text=True) == field.read(other, as_text=True))
    except RefusedError:
        return one.strip() == other.strip()


def _variable(given: Given) -> str:
    return given.origin.variable or given.origin.place


def _unknown_names(fields: Mapping[str, Field], inputs: Inputs) -> Iterable[ConfigError]:
    """Yield an error for each name in the files that is not a setting; with OWN_PREFIX, also in the environment."""
    known = _known_names(fields)
    own = [
        (name, given)
        for name, given in inputs.environment.items()
        if name.startswith(OWN_PREFIX) and name not in _OF_CLIENTS and not _is_service_link(name, given.value)
    ]
    for name, given in (*inputs.dotenv.items(), *own):
        if name not in known:
            hint = _nearest(name, known) or _nearest(name.removeprefix(OWN_PREFIX), known)
            yield _unknown(name, given, hint)
    sections = {field.section for field in fields.values()}
    for key, given in inputs.toml.items():
        if key in fields or key in sections:
            continue
        section, _, name = key.rpartition(".")
        if section not in sections:
            yield _unknown(key, given, _nearest_section(name, section, fields))
        else:
            yield _unknown(key, given, _nearest_key(name, key, fields))


def _known_names(fields: Mapping[str, Field]) -> set[str]:
    return {name for field in fields.values() for name in field.setting.env} | {*names_of_files(fields.values())}


def _is_service_link(name: str, value: str) -> bool:
    """Return whether Kubernetes set the variable (HEADRACE_SERVICE_HOST) for a service called headrace."""
    return bool(_SERVICE_LINK.search(name)) or (name.endswith("_PORT") and value.startswith(("tcp://", "udp://")))


def _unknown(name: str, given: Given, hint: str | None) -> ConfigError:
    expected = f"a known one; did you mean {hint}?" if hint else "a known one (`headrace config` lists them)"
    return ConfigError(name, "an unknown setting", expected, origin=str(given.origin))


def _nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    return next(iter(difflib.get_close_matches(name[:128], sorted(known), 1, cutoff)), None)


def _nearest_section(name: str, section: str, fields: Mapping[str, Field]) -> str | None:
    sections = {field.section for field in fields.values()}
    near = _nearest(section or name, sections) or _nearest(f"{section}.{name}", sections)
    if near is not None:
        return f"{near}.{name}" if f"{near}.{name}" in fields else f"[{near}]"
    return _anywhere(lambda field: field.name == name, fields)


def _nearest_key(name: str, key: str, fields: Mapping[str, Field]) -> str | None:
    """Return the nearest key: a field of the same name anywhere, or the nearest spelling in the section or in all."""
    section = key.rpartition(".")[0]
    own = {field.key for field in fields.values() if field.section == section}
    return (
        _anywhere(lambda field: field.name == name or name.upper() in field.setting.env, fields)
        or _nearest(key, own, 0.75)
        or _nearest(key, fields)
    )


def _anywhere(fits: Callable[[Field], bool], fields: Mapping[str, Field]) -> str | None:
    return next((field.key for field in fields.values() if fits(field)), None)


def _near_misses(fields: Mapping[str, Field], environment: Mapping[str, Given]) -> Iterable[str]:
    """Yield a warning for each variable whose name is almost a setting's. Not an error: the environment is shared."""
    known = _known_names(fields)
    for name in sorted(environment):
        if name in known or name.startswith(OWN_PREFIX):
            continue
        if near := _nearest(name, known, _NEAR_MISS) or _of_the_same_words(name, known):
            yield f"{name} in the environment is not a setting; did you mean {near}?"


def _of_the_same_words(name: str, known: Iterable[str]) -> str | None:
    """Return a known name with the same words in another order, or with one more word.

    `QUEUE_CONCURRENCY`, for example, lacks the word `MAX`. The first words must be equal: `TEST_DATABASE_URL` belongs
    to another program.
    """
    words = name[:128].split("_")
    near = [
        other
        for other in sorted(known)
        if len(words) > 1
        and other.split("_")[0] == words[0]
        and set(words) <= set(other.split("_"))
        and len(other.split("_")) - len(words) in (0, 1)
    ]
    return next(iter(near), None)
