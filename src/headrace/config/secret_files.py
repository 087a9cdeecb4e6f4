"""Reads secrets from files: `JWT_SECRET_FILE=/run/secrets/jwt` sets JWT_SECRET to the content of that file."""

from collections.abc import Mapping
from pathlib import Path

from headrace.config.inputs import Given, Inputs, read_text
from headrace.model.errors import ConfigError


def read_secret_files(inputs: Inputs, names: Mapping[str, str]) -> Inputs:
    """Return the inputs with the content of files in place of the variables in `names`, which name the files. Blocks.

    An empty variable is treated as one that is not set. Errors name the variable and the file, never the content.
    """
    errors: list[ConfigError] = []
    paths: list[Path] = []
    environment = _replace(inputs.environment, names, errors, paths)
    dotenv = _replace(inputs.dotenv, names, errors, paths)
    return inputs._replace(
        environment=environment,
        dotenv=dotenv,
        secret_files=tuple(dict.fromkeys(paths)),
        errors=(*inputs.errors, *errors),
    )


def _replace(
    given: Mapping[str, Given], names: Mapping[str, str], errors: list[ConfigError], paths: list[Path]
) -> dict[str, Given]:
    values = {name: value for name, value in given.items() if name not in names}
    for variable in filter(given.__contains__, names):
        path, origin = given[variable].value.strip(), given[variable].origin
        if not path:
            continue
        name = names[variable]
        if name in values and values[name].value.strip():
            errors.append(ConfigError(variable, f"a value in {name} too", "one of the two", origin=str(origin)))
            continue
        paths.append(Path(path))
        try:
            text = read_text(Path(path), variable)
        except ConfigError as error:
            errors.append(error)
            continue
        if text is None or not text.strip():
            fault = "no such file" if text is None else "an empty file"
            errors.append(ConfigError(variable, f"{path}: {fault}", "a file with the value", origin=str(origin)))
        else:
            values[name] = Given(text, origin)
    return values
