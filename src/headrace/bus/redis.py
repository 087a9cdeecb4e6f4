"""The bus of several processes on Redis or Valkey: each lane is one log with one writer, which all others read."""

import asyncio
import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
import structlog

from headrace.adapters import Context
from headrace.bus import BusSettings, Lane
from headrace.bus.entries import START, EntryId, decode
from headrace.bus.lanes import LANES
from headrace.bus.ledger import Ledger, Top, tops_of
from headrace.bus.redis_lane import LaneLog, new_epoch
from headrace.bus.redis_scripts import CLAIM, FOLLOWED, STATE
from headrace.bus.redis_writer import Identity, RedisWriter
from headrace.bus.shared_view import SharedView
from headrace.bus.viewed import ViewedBus
from headrace.config import Setting
from headrace.model.errors import BadInputError, FencedError, InvariantError, TransientError
from headrace.redis import RedisPrefix, RedisRetries, RedisTimeout, RedisUrl
from headrace.redis.connection import Redis, check_packages
from headrace.runtime.backoff import Backoff

_PAGE: Final = 64
"""Maximum number of entries of a lane that are read at once."""

_BLOCK_MS_MAX: Final = 1_000

_log = structlog.get_logger("bus")


class RedisBusSettings(BusSettings, frozen=True, forbid_unknown_fields=True):
    """Section `[bus.redis]`: the bus that servers share. Topics and messages are bounded as in `[bus]`."""

    redis_url: RedisUrl = None
    redis_prefix: RedisPrefix = "headrace"
    redis_timeout_s: RedisTimeout = 2.0
    redis_retries: RedisRetries = 3
    log_bytes: Annotated[
        int,
        msgspec.Meta(ge=65_536),
        Setting(
            "bytes of a lane's log on the server, and of what its writer keeps to repeat it",
            env=("BUS_REDIS_LOG_BYTES",),
        ),
    ] = 64 * 1024 * 1024
    local_after_s: Annotated[
        float,
        msgspec.Meta(ge=0.1, le=600),
        Setting(
            "how long the server may be away before messages reach clients of the publishing process without it",
            env=("BUS_REDIS_LOCAL_AFTER_S",),
        ),
    ] = 3.0


class _State(msgspec.Struct, frozen=True):
    """A lane's log as the server has it."""

    at: EntryId
    part: int
    tops: dict[str, Top]


class RedisBus(ViewedBus):
    """The `Bus` of all processes with one server and prefix.

    One connection waits for the entries of all lanes that other processes write. A lane that this process writes comes
    into the view from the writer. The history is that of the view, which begins with what the log still has.
    """

    Settings = RedisBusSettings
    SECTION = "bus.redis"
    claim_script = CLAIM

    def __init__(self, settings: RedisBusSettings, context: Context, redis: Redis, once: Redis) -> None:
        clock = context.clock
        super().__init__(settings, clock, context.generation)
        self._view = self._shared = SharedView(settings, clock, context.generation)
        self._settings, self._clock, self._tasks = settings, clock, context.tasks
        self._redis, self._once = redis, once
        self._logs = {
            lane: LaneLog(
                lane,
                settings.redis_prefix,
                self._shared,
                bytes_max=settings.log_bytes,
                age_max_s=settings.history_ttl_s,
            )
            for lane in LANES
        }
        self._writers: dict[Lane, RedisWriter] = {}
        self._running: list[asyncio.Task[object]] = []
        self._to_read = asyncio.Event()
        self._trouble: TransientError | None = None
        self._first_epoch = new_epoch(clock, START)

    @classmethod
    async def open(cls, settings: RedisBusSettings, context: Context) -> "RedisBus":
        """Return the bus once the view has all that the logs have.

        Raises ConfigError for a server that may evict keys, or that refuses the user.
        """
        url, timeout_s = settings.redis_url, settings.redis_timeout_s
        redis = Redis.of(url, timeout_s=timeout_s, retries=settings.redis_retries)
        bus = cls(settings, context, redis, Redis.of(url, timeout_s=timeout_s, retries=0))
        try:
            await redis.check_settings()
            for log in bus._logs.values():
                bus._shared.begin(log.lane, bus._first_epoch, 0)
                await bus._catch_up(log)
        except BaseException:
            await bus.close()
            raise
        bus._start("reader", bus._read)
        return bus

    @classmethod
    def check_packages(cls) -> None:
        """Raise ConfigError if the packages of the extra `redis` are missing."""
        check_packages()

    async def claim(self, lane: Lane, token: int | None = None) -> RedisWriter:
        self._check_open()
        log = self._logs[lane]
        epoch = self._first_epoch if log.at == START else new_epoch(self._clock, log.at)
        run_id, name = await self.run_id(), secrets.token_hex(8)
        answer = await self._redis.run(self.claim_script, log.keys, name, -1 if token is None else token, run_id, epoch)
        if answer[0] == FOLLOWED:
            raise FencedError(f"lane {lane}: token {token} was given, expected one above {answer[1]}")
        return await self._write(log, name, int(answer[0]))

    async def check(self, *, thorough: bool) -> None:
        """Raise TransientError while entries do not arrive, or are not in the log yet."""
        self._check_open()
        for trouble in (*(writer.trouble for writer in self._writers.values()), self._trouble):
            if trouble is not None:
                raise TransientError(str(trouble))
        await self._redis.check()

    async def close(self) -> None:
        if self._closed:
            return
        await super().close()
        for task in self._running:
            task.cancel()
        if self._running:
            await asyncio.wait(self._running)
        for writer in self._writers.values():
            writer.end(TransientError("the bus is closed"))
        for redis in (self._redis, self._once):
            await redis.close()

    # Writers.

    async def run_id(self) -> str:
        """Return the run id of the server."""
        return (await self._once.info("server"))["run_id"]

    def lost(self, log: LaneLog, *, reread: bool) -> None:
        """Read the lane again, as another process writes it; `reread`: from the beginning."""
        log.written_here, log.stale = False, True
        if reread:
            log.forget()
        self._to_read.set()

    async def _write(self, log: LaneLog, name: str, token: int) -> RedisWriter:
        """Return the writer of a lane that was claimed with this token, once the view has the whole log."""
        former = self._writers.pop(log.lane, None)
        if former is not None:
            former.end(FencedError(f"lane {log.lane}: the writer was followed by one with token {token}"))
            if former.local:
                log.forget()
        log.written_here = False
        state = await self._catch_up(log)
        if state is None or log.at != state.at:
            raise TransientError(f"Redis: the log of lane {log.lane} changed while it was claimed")
        log.written_here = True
        ledger = Ledger(state.at, state.part, state.tops, self._settings.topics_max)
        identity = Identity(name, token)
        writer = RedisWriter(self, log, self._once, self._clock, identity, ledger, self._settings.local_after_s)
        self._writers[log.lane] = writer
        self._start(f"writer {log.lane}", writer.run)
        self._start(f"look {log.lane}", writer.look)
        if state.at.seq == 0:
            await writer.publish(writer.batch([]))
        return writer

    def _start(self, name: str, work: Any) -> None:
        self._running = [task for task in self._running if not task.done()]
        self._running.append(self._tasks.start("bus", name, work))

    # Reading.

    async def _read(self) -> None:
        """Bring the view up to date with the lanes that other processes write, until cancelled."""
        backoff = Backoff(initial_s=0.02, max_s=1.0)
        while not self._closed:
            logs = [log for log in self._logs.values() if not log.written_here]
            if not logs:
                self._to_read.clear()
                await self._to_read.wait()
                continue
            try:
                for log in logs:
                    if log.stale:
                        await self._catch_up(log)
                await self._read_some(logs)
                self._trouble = None
                backoff.reset()
            except TransientError as error:
                if self._trouble is None:
                    _log.warning("bus_unread", error=str(error))
                self._trouble = error
                for log in logs:
                    log.stale = True
                await self._clock.sleep(backoff.next_s())

    async def _read_some(self, logs: Sequence[LaneLog]) -> None:
        """Wait for entries, for a while, and take those that came."""
        block_ms = min(_BLOCK_MS_MAX, int(self._settings.redis_timeout_s * 500))
        names, ids = [log.keys[2] for log in logs], [str(log.at) for log in logs]
        answer = await self._once.command("XREAD", "COUNT", _PAGE, "BLOCK", block_ms, "STREAMS", *names, *ids)
        by_name = {log.keys[2].encode(): log for log in logs}
        for name, entries in answer or ():
            self._take(by_name[name], entries)

    async def _catch_up(self, log: LaneLog) -> _State | None:
        """Read the log up to its state on the server; return the state, or None if the server lacks what is known here.

        Topics whose messages are gone from the log continue at their newest positions, which is reported.
        """
        async with log.catching_up:
            return None if log.written_here else await self._read_to_end(log)

    async def _read_to_end(self, log: LaneLog) -> _State | None:
        state = await self._state(log)
        log.stale = False
        while state is not None and log.at < state.at:
            after = f"({log.at}" if log.at != START else "-"
            entries = await self._redis.command("XRANGE", log.keys[2], after, str(state.at), "COUNT", _PAGE)
            if not entries:
                break
            self._take(log, entries, whole=False)
        if state is None or state.at < log.at:
            return None
        if log.at.epoch != state.at.epoch:
            self._shared.begin(log.lane, state.at.epoch, state.part)
        self._shared.reconcile(log.lane, state.at.epoch, state.part, state.tops)
        log.at = state.at
        return state

    async def _state(self, log: LaneLog) -> _State | None:
        epoch, seq, part, tops = await self._redis.run(STATE, log.keys)
        return None if epoch is None else _State(EntryId(int(epoch), int(seq)), int(part), tops_of(tops))

    def _take(self, log: LaneLog, entries: Sequence[Any], *, whole: bool = True) -> None:
        """Put entries into the view. With `whole`, stop where one is missing: then the state must be read first."""
        for name, fields in entries:
            at = EntryId(*map(int, name.split(b"-")))
            if log.written_here or at <= log.at:
                continue
            if whole and not log.follows(at):
                log.stale = True
                return
            try:
                entry = decode(fields[1])
                log.take(at, entry, entry.publications(), len(fields[1]), self._clock.monotonic())
            except (BadInputError, InvariantError) as error:
                _log.error("bus_entry_unread", lane=log.lane, entry=str(at), error=str(error))
                log.at = at
            except Exception as error:  # noqa: BLE001  (a sink that raises must not stop the others' messages)
                _log.exception("bus_sink_failed", lane=log.lane, error=repr(error))
