"""The machine of a connection's credential, at every place it can reach, with every event."""

from collections.abc import Callable, Iterator
from copy import copy
from typing import Any, Final

import pytest

from headrace.model.errors import RequestError
from headrace.model.identity import Identity, Permissions
from headrace.protocol.codes import CloseCode, ErrorCode
from headrace.protocol.credential_state import (
    BAD_TOKEN,
    EXPIRED,
    ONE_AT_A_TIME,
    UNAUTHORIZED,
    CredentialState,
    End,
    Entered,
    Refuse,
    Renewed,
    State,
    Terms,
    Warn,
)

TERMS: Final = Terms(connect_s=10, notice_s=60, grace_s=25)
WHO: Final = Identity("42", 0, Permissions(everything=True))
OTHER: Final = Identity("43", 0, Permissions(everything=True))
AWAY: Final = RequestError(ErrorCode.UNAVAILABLE, "away", temporary=True)


def standing(claimed: str | None = None) -> CredentialState:
    return CredentialState(claimed, TERMS, 0.0)


def entered(valid_s: float = 100, at_s: float = 0) -> CredentialState:
    machine = standing()
    machine.attempt()
    assert machine.accept(WHO, valid_s, at_s) == Entered()
    return machine


def code_of(check: Callable[[], None]) -> int | None:
    try:
        check()
    except RequestError as error:
        return error.code
    return None


def test_a_life_from_first_to_last() -> None:
    machine = standing()
    assert (machine.wake_at_s, code_of(machine.check_command)) == (10, 101)
    machine.attempt()
    assert machine.accept(WHO, 100, 5) == Entered()
    assert (machine.wake_at_s, code_of(machine.check_command)) == (45, None)
    assert machine.wake(44.9) == []
    assert machine.wake(45) == [Warn(60)]
    assert (machine.wake_at_s, code_of(machine.check_command)) == (105, None)
    assert machine.wake(105) == []
    assert (machine.wake_at_s, code_of(machine.check_command)) == (130, 109)
    assert machine.wake(129.9) == []
    assert machine.wake(130) == [End(CloseCode.EXPIRED)]
    assert (machine.wake_at_s, machine.wake(1e9)) == (float("inf"), [])


def test_a_late_wake_returns_everything_due_in_order() -> None:
    assert entered().wake(1000) == [Warn(0), End(CloseCode.EXPIRED)]


def test_the_time_to_authenticate_ends_though_a_check_is_under_way() -> None:
    machine = standing()
    machine.attempt()
    assert machine.wake(10) == [End(CloseCode.AUTH_TIMEOUT)]
    assert machine.accept(WHO, 100, 11) is None
    assert machine.subject is None


@pytest.mark.parametrize("at_s", [30, 45, 100, 124])
def test_a_newer_token_counts_in_every_state(at_s: float) -> None:
    machine = entered()
    machine.wake(at_s)
    machine.attempt()
    assert machine.accept(WHO._replace(admin=True), 100, at_s) == Renewed()
    assert (machine.state, machine.wake_at_s, code_of(machine.check_command)) == (State.VALID, at_s + 40, None)
    assert machine.identity is not None
    assert machine.identity.admin


def test_the_same_token_again_is_not_warned_at_once() -> None:
    """Or clients whose tokens come from a cache would do nothing else for a minute."""
    machine, now_s, warned = entered(60), 0.0, 0
    while machine.state is not State.EXPIRED:
        for told in machine.wake(now_s):
            assert isinstance(told, Warn)
            warned += 1
            if now_s < 59:
                machine.attempt()
                assert machine.accept(WHO, 60 - now_s, now_s) == Renewed()
        now_s += 0.25
    assert warned <= 8


@pytest.mark.parametrize("at_s", [0, 45, 100])
@pytest.mark.parametrize("failure", [BAD_TOKEN, EXPIRED, AWAY])
def test_a_bad_refresh_changes_nothing(at_s: float, failure: RequestError) -> None:
    machine = entered()
    machine.wake(at_s)
    before = (machine.state, machine.wake_at_s)
    machine.attempt()
    assert machine.refuse(failure) == Refuse(failure)
    machine.attempt()
    assert isinstance(machine.accept(OTHER, 100, at_s), Refuse)
    assert (machine.state, machine.wake_at_s, machine.subject, machine.checking) == (*before, "42", False)


@pytest.mark.parametrize(
    ("failure", "outcome"),
    [
        (BAD_TOKEN, End(CloseCode.BAD_TOKEN)),
        (EXPIRED, End(CloseCode.EXPIRED)),
        (AWAY, Refuse(AWAY)),
    ],
)
def test_a_failed_first_attempt_ends_the_connection_or_allows_another(failure: RequestError, outcome: Any) -> None:
    machine = standing()
    machine.attempt()
    assert machine.refuse(failure) == outcome


@pytest.mark.parametrize(
    ("claimed", "outcome"),
    [("42", Entered()), (None, Entered()), ("43", End(CloseCode.DENIED)), ("", End(CloseCode.DENIED))],
)
def test_another_user_in_the_url_is_denied(claimed: str | None, outcome: Any) -> None:
    machine = standing(claimed)
    machine.attempt()
    assert machine.accept(WHO, 100, 0) == outcome


def test_a_second_check_at_once_is_refused() -> None:
    machine = standing()
    machine.attempt()
    with pytest.raises(RequestError) as refused:
        machine.attempt()
    assert refused.value is ONE_AT_A_TIME


def test_topics_before_authentication_are_denied() -> None:
    assert code_of(lambda: standing().check_topic("slots")) == ErrorCode.DENIED
    assert code_of(lambda: entered().check_topic("slots")) is None
    assert code_of(lambda: entered().check_topic("user:43")) == ErrorCode.DENIED


Event = tuple[str, Callable[[CredentialState, float], Any]]
EVENTS: Final[tuple[Event, ...]] = (
    ("attempt", lambda machine, _: machine.attempt()),
    ("accept", lambda machine, now_s: machine.accept(WHO, 100, now_s) if machine.checking else None),
    ("accept short", lambda machine, now_s: machine.accept(WHO, 0, now_s) if machine.checking else None),
    ("accept other", lambda machine, now_s: machine.accept(OTHER, 100, now_s) if machine.checking else None),
    ("refuse", lambda machine, _: machine.refuse(BAD_TOKEN) if machine.checking else None),
    ("put off", lambda machine, _: machine.refuse(AWAY) if machine.checking else None),
    ("close", lambda machine, _: machine.close()),
    ("wait 9", lambda machine, now_s: machine.wake(now_s)),
    ("wait 40", lambda machine, now_s: machine.wake(now_s)),
)


def moment(machine: CredentialState, now_s: float) -> tuple[Any, ...]:
    """Where a machine is; two at the same place will go the same ways."""
    left_s = {name: value - now_s for name, value in vars(machine).items() if name.endswith("_s")}
    over = machine.state is State.CLOSED
    return machine.state, machine.checking, machine.identity, *(() if over else left_s.values())


def steps() -> Iterator[tuple[CredentialState, CredentialState, str, Any, float]]:
    """Every event at every place that can be reached: (before, after, event, outcome, time)."""
    first = standing()
    ahead, seen = [(first, 0.0)], {moment(first, 0.0)}
    while ahead:
        machine, now_s = ahead.pop()
        for name, act in EVENTS:
            after = copy(machine)
            at_s = now_s + (float(name.removeprefix("wait ")) if name.startswith("wait") else 0)
            try:
                outcome = act(after, at_s)
            except RequestError as error:
                outcome = error
            yield machine, after, name, outcome, at_s
            if (place := moment(after, at_s)) not in seen:
                seen.add(place)
                ahead.append((after, at_s))


def test_every_step_from_every_place_keeps_the_promises() -> None:
    seen: set[tuple[State, bool, str]] = set()
    for before, after, name, outcome, now_s in steps():
        seen.add((before.state, before.checking, name))
        over = after.state is State.CLOSED
        assert over == (after.wake_at_s == float("inf"))
        if before.state is State.CLOSED:
            assert over
            assert outcome in (None, []) or name == "attempt"
        if before.identity is not None:
            assert after.subject == before.subject  # for ever the same user
        if after.identity is not None and before.identity is None:
            assert outcome == Entered()
            assert before.checking
        if not over and name.startswith("wait"):
            assert after.wake_at_s > now_s  # nothing that is due is left
        ends = outcome if isinstance(outcome, list) else [outcome]
        if any(isinstance(end, End) for end in ends):
            assert over
            assert isinstance(ends[-1], End)
        if not over:
            commands = code_of(after.check_command)
            assert commands == {State.WAITING: 101, State.EXPIRED: 109}.get(after.state)
            assert (after.identity is None) == (after.state is State.WAITING)
    for state in State:
        for name, _ in EVENTS:
            assert (state, False, name) in seen, (state, name)
    assert UNAUTHORIZED.code == 101
