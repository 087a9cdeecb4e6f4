"""Settings from environment, `.env` and `headrace.toml`, checked at start."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """What a settings field adds to its type, as `Annotated[int, msgspec.Meta(ge=1), Setting(env=("PORT",), …)]`.

    `env` are the environment names that set it, first wins. `live`: it may change without a restart. `secret`: its
    value is never shown.
    """

    about: str
    env: tuple[str, ...] = ()
    live: bool = False
    secret: bool = False
