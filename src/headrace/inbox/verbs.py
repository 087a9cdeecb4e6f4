"""The inbox's operations for any SQL database. Each is a generator that yields statements and receives their rows.

Parameters are written `?1`. SQLite accepts them unchanged; for PostgreSQL they become `$1`.
"""

import secrets
from collections.abc import Generator, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from headrace.database import observed
from headrace.database.observed import ObservedTime
from headrace.inbox import KEY_KEPT_MS, PENDING_MS, Box, Compose, InboxSettings, Kept, Known, Letter, Lost
from headrace.model.errors import RequestError
from headrace.model.events import Position
from headrace.protocol.codes import ErrorCode

R = TypeVar("R")
Row: TypeAlias = Sequence[Any]

OLD_PER_TIDY: Final = 10_000
"""Maximum number of messages deleted per database transaction, to keep it short."""


class Statement(NamedTuple):
    """One SQL statement and the values of its parameters."""

    sql: str
    values: Sequence[Any]


Verb: TypeAlias = Generator[Statement, list[Row], R]

_TAKE_KEY: Final = """insert into broadcasts (key, fingerprint, answer, at) values (?1, ?2, null, ?3)
    on conflict (key) do nothing returning key"""
_TAKE_OVER: Final = """update broadcasts set at = ?2 where key = ?1 and answer is null and at <= ?3 returning key"""
_KEY: Final = "select fingerprint, answer from broadcasts where key = ?1"
_KEYS: Final = "select count(*) from broadcasts"
_SETTLE: Final = "update broadcasts set answer = ?2 where key = ?1"
_OLD_KEYS: Final = "delete from broadcasts where at < ?1"

_NEXT: Final = """insert into inbox_users as u (user_id, epoch, top, letters, bytes, touched)
    values (?1, ?2, 1, 1, ?3, ?4)
    on conflict (user_id) do update
    set top = u.top + 1, letters = u.letters + 1, bytes = u.bytes + ?3, touched = ?4
    returning epoch, top, letters, bytes"""
_INSERT: Final = """insert into inbox (user_id, number, event_id, data, size, ack, at)
    values (?1, ?2, ?3, ?4, ?5, ?6, ?7)"""
_SURPLUS: Final = """delete from inbox where user_id = ?1 and number in (
    select number from (select number, row_number() over newest as place, sum(size) over newest as total
        from inbox where user_id = ?1 window newest as (order by number desc)) kept
    where place > ?2 or total > ?3)
    returning number, size, ack"""
_LEFT: Final = """update inbox_users set letters = letters - ?2, bytes = bytes - ?3 where user_id = ?1"""
_LOST: Final = """update inbox_users set lost = lost + ?2,
    lost_first = case when lost = 0 then ?3 else lost_first end, lost_last = ?4 where user_id = ?1"""
_BOX: Final = """select epoch, top, lost, lost_first, lost_last,
    (select count(*) from inbox where user_id = ?1 and ack = 1) from inbox_users where user_id = ?1"""
_AFTER: Final = """select number, event_id, data, ack from inbox where user_id = ?1 and number > ?2
    order by number limit ?3"""
_WAITING: Final = """select number, event_id, data, ack from inbox where user_id = ?1 and number > ?2 and ack = 1
    order by number limit ?3"""
_LOCK: Final = "update inbox_users set touched = ?2 where user_id = ?1 returning user_id"
_ACKNOWLEDGE: Final = "delete from inbox where user_id = ?1 and number <= ?2 and ack = 1 returning size"
_FOUND: Final = "update inbox_users set lost = 0 where user_id = ?1 and lost_last <= ?2 and lost > 0"
_OLD: Final = "select user_id, number from inbox where ack = ?1 and at < ?2 order by at limit ?3"
_DELETE: Final = "delete from inbox where user_id = ?1 and number = ?2 returning number, size, ack"
_OCCUPY: Final = """insert into room (id, data) values (1, ?1)
    on conflict (id) do update set data = excluded.data returning id"""
_IDLE: Final = "delete from inbox_users where letters = 0 and touched < ?1"


def begin(key: str, fingerprint: str, keys_max: int, now_ms: int) -> Verb[Known | None]:
    known = yield Statement(_KEY, [key])
    if not known:
        ((count,),) = yield Statement(_KEYS, [])
        if count >= keys_max:
            raise RequestError(ErrorCode.RATE_LIMITED, "too many idempotency keys", temporary=True)
        if (yield Statement(_TAKE_KEY, [key, fingerprint, now_ms])):
            return None
        known = yield Statement(_KEY, [key])
    ((before, answer),) = known
    if before != fingerprint or answer is not None:
        return Known(before == fingerprint, answer)
    taken_over = yield Statement(_TAKE_OVER, [key, now_ms, now_ms - PENDING_MS])
    return None if taken_over else Known(same=True, answer=None)


def put(
    letters: Sequence[Letter], key: str | None, compose: Compose, settings: InboxSettings, now_ms: int
) -> Verb[tuple[list[Position], str]]:
    """Append messages. Users are locked in the order of their ids, so that no two transactions wait for each other."""
    positions: dict[int, Position] = {}
    for index, letter in sorted(enumerate(letters), key=lambda entry: (entry[1].user_id, entry[0])):
        size = len(letter.data)
        ((epoch, top, count, total),) = yield Statement(_NEXT, [letter.user_id, secrets.token_hex(4), size, now_ms])
        positions[index] = Position(epoch, top)
        values = [letter.user_id, top, letter.event_id, letter.data, size, int(letter.ack), now_ms]
        yield Statement(_INSERT, values)
        if count > settings.messages_max or total > settings.bytes_max:
            surplus = yield Statement(_SURPLUS, [letter.user_id, settings.messages_max, settings.bytes_max])
            yield from _gone(letter.user_id, surplus)
    placed = [positions[index] for index in range(len(letters))]
    answer = compose(placed)
    if key is not None:
        yield Statement(_SETTLE, [key, answer])
    return placed, answer


def box(user_id: str) -> Verb[Box | None]:
    rows = yield Statement(_BOX, [user_id])
    if not rows:
        return None
    ((epoch, top, lost, first, last, waiting),) = rows
    return Box(Position(epoch, top), Lost(lost, first, last) if lost else None, waiting)


def after(user_id: str, offset: int, limit: int, *, unacknowledged: bool) -> Verb[list[Kept]]:
    rows = yield Statement(_WAITING if unacknowledged else _AFTER, [user_id, offset, limit])
    return [Kept(number, event_id, data, bool(ack)) for number, event_id, data, ack in rows]


def acknowledge(user_id: str, offset: int, now_ms: int) -> Verb[None]:
    if not (yield Statement(_LOCK, [user_id, now_ms])):
        return
    sizes = [size for (size,) in (yield Statement(_ACKNOWLEDGE, [user_id, offset]))]
    if sizes:
        yield Statement(_LEFT, [user_id, len(sizes), sum(sizes)])
    yield Statement(_FOUND, [user_id, offset])


def occupy(data: bytes) -> Verb[None]:
    """Write `data` to the database, to check that it can store this many bytes."""
    yield Statement(_OCCUPY, [data])


def tick(time: ObservedTime) -> Verb[None]:
    """Adopt the observed time of the database if it is later, and store this process's observed time."""
    for (ms,) in (yield Statement(observed.READ, [])):
        time.learn(ms)
    ((ms,),) = yield Statement(observed.SEEN, [time.now_ms()])
    time.learn(ms)


def tidy(settings: InboxSettings, time: ObservedTime) -> Verb[int]:
    yield from tick(time)
    now_ms = time.now_ms()
    yield Statement(_OLD_KEYS, [now_ms - KEY_KEPT_MS])
    lost = 0
    for ack, kept_s in ((0, settings.passing_s), (1, settings.age_s)):
        old = yield Statement(_OLD, [ack, now_ms - int(kept_s * 1000), OLD_PER_TIDY])
        for user_id, number in sorted(map(tuple, old)):
            yield Statement(_LOCK, [user_id, now_ms])
            gone = yield Statement(_DELETE, [user_id, number])
            lost += yield from _gone(user_id, gone)
    yield Statement(_IDLE, [now_ms - int(settings.age_s * 1000)])
    return lost


def _gone(user_id: str, rows: Sequence[Row]) -> Verb[int]:
    """Count messages that were dropped. Return how many of them waited to be acknowledged."""
    if rows:
        yield Statement(_LEFT, [user_id, len(rows), sum(size for _, size, _ in rows)])
    waited = sorted(number for number, _, ack in rows if ack)
    if waited:
        yield Statement(_LOST, [user_id, len(waited), waited[0], waited[-1]])
    return len(waited)
