"""Which answers are final, and how long a server wants to be left alone."""

import pytest

from headrace.runtime.http_answers import is_final, retry_after_s


def test_only_4xx_is_final_and_not_what_is_about_the_moment() -> None:
    final = {status for status in range(100, 600) if is_final(status)}
    assert final == set(range(400, 500)) - {408, 425, 429}


@pytest.mark.parametrize(
    ("asked", "rest_s"),
    [("7", 7.0), ("0", 0.0), ("9" * 400, 60.0), ("", None), ("-1", None), ("1.5", None), ("²", None), ("Fri", None)],
)
def test_seconds_of_a_retry_after(asked: str, rest_s: float | None) -> None:
    assert retry_after_s(asked, 60.0) == rest_s
