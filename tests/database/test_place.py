"""Test the database that a URL names."""

import pytest

from headrace.database.place import Place, place_of


@pytest.mark.parametrize(
    ("url", "place", "file"),
    [
        (None, Place("sqlite", "own.db"), "own.db"),
        ("", Place("sqlite", "own.db"), "own.db"),
        ("sqlite:///here.db", Place("sqlite", "/here.db"), "/here.db"),
        ("sqlite:////var/here.db", Place("sqlite", "//var/here.db"), "//var/here.db"),
        ("postgresql://u@h/d", Place("postgres", "postgresql://u@h/d"), None),
        ("postgres://u@h/d", Place("postgres", "postgres://u@h/d"), None),
    ],
)
def test_a_url_names_a_database_and_nothing_names_the_file(url: str | None, place: Place, file: str | None) -> None:
    assert place_of(url, "own.db") == place
    assert place.file == file


def test_memory_is_no_file() -> None:
    assert place_of(None, ":memory:").file is None
