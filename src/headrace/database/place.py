"""Finds which kind of database a URL names, and where it is."""

from typing import NamedTuple

from headrace.database.sqlite_file import MEMORY


class Place(NamedTuple):
    """A database. `kind` is its name in the registers of stores and inboxes; `where` is a file or URL."""

    kind: str
    where: str

    @property
    def file(self) -> str | None:
        """The file that the process writes. None for a server, and for a database in memory."""
        return self.where if self.kind == "sqlite" and self.where != MEMORY else None


def place_of(database_url: str | None, file: str) -> Place:
    """Return the database that the URL names, or the SQLite file if there is no URL."""
    if not database_url:
        return Place("sqlite", file)
    if database_url.startswith("sqlite:"):
        return Place("sqlite", database_url.removeprefix("sqlite:").removeprefix("//"))
    return Place("postgres", database_url)
