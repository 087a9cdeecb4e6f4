"""The RPC PubSub source: one session per endpoint, all of them read at once, and what none of them brought declared."""

import asyncio
import random
import ssl
from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Final

import msgspec
import structlog

from headrace.model.updates import AccountUpdate, LandingUpdate, LogsUpdate, SlotStatus, SlotUpdate, TransactionUpdate
from headrace.runtime.backoff import Backoff
from headrace.runtime.breaker import Breaker
from headrace.runtime.clock import Clock
from headrace.runtime.health import Health
from headrace.runtime.metrics import Metrics
from headrace.runtime.supervise import Supervisor
from headrace.solana.rpc import Rpc
from headrace.sources import Ending, Outlet
from headrace.sources.confirm import Confirmations, Verdict
from headrace.sources.coverage import Coverage, Hole
from headrace.sources.crosscheck import CrossCheck
from headrace.sources.damage import Damage
from headrace.sources.fetching import Fetcher
from headrace.sources.gaps import Gaps
from headrace.sources.head import Heads
from headrace.sources.health import Standing
from headrace.sources.ledger import Ledger, Recent
from headrace.sources.metrics import Tally
from headrace.sources.outage import Outage
from headrace.sources.proofs import Proofs, Proven
from headrace.sources.proving import Prover
from headrace.sources.rpc_pubsub.frames import LandedNotice, SignatureNotice, SlotNotice
from headrace.sources.rpc_pubsub.salvage import Unreadable
from headrace.sources.rpc_pubsub.session import Session
from headrace.sources.rpc_pubsub.settings import RpcPubSubSettings, check_ws_urls
from headrace.sources.signatures import Signatures
from headrace.sources.subscriptions import SLOTS, Resolve, Subscription, parse_all
from headrace.sources.verdicts import follow_verdicts

_log = structlog.get_logger("source")


_PAST_SLOTS: Final = 1_024
_AHEAD_SLOTS: Final = 512
"""What a node delivers is at most so far from its head; another slot is misread, or made up."""


def _no_names(name: str) -> str:
    raise KeyError(name)


class RpcPubSub:
    """A `Source`. Every endpoint delivers every subscription, so an update comes as soon as the fastest node has it
    and is lost only if all of them missed it; the pipeline drops the repeats.

    `rpc` is needed to fill gaps, to cross-check and to confirm slots; without it the stream still flows and every gap
    is unrecoverable. `resolve` turns a program's name into its id (KeyError: unknown). `breakers`, one per endpoint,
    rest those that keep failing. `covered` is that of an earlier source whose work this one takes up: what was missed
    between them is a gap. Raises ConfigError for endpoints or subscriptions that can't be.
    """

    def __init__(
        self,
        settings: RpcPubSubSettings,
        *,
        clock: Clock,
        metrics: Metrics,
        health: Health,
        rpc: Rpc | None = None,
        resolve: Resolve = _no_names,
        breakers: Sequence[Breaker] = (),
        covered: Mapping[str, int] = MappingProxyType({}),
        rng: random.Random | None = None,
        name: str = "rpc",
    ) -> None:
        check_ws_urls(settings.ws_urls)
        self.name, self._settings = name, settings
        self._wanted = parse_all(settings.subscriptions, resolve)
        self._clock, self._rpc, self._resolve = clock, rpc, resolve
        self._standing = Standing(name, health, settings)
        self._breakers, self._rng = breakers, rng
        self._tally = Tally(metrics)
        self.covered: Mapping[str, int] = covered
        """Feed → the slot up to which all was brought or declared; brought up to date when `run` ends."""
        feeds = {subscription.feed for subscription in self._wanted}
        self._coverage = {feed: Coverage(slot) for feed, slot in covered.items() if feed in feeds}
        self._recent = Recent()
        self._damage = Damage()
        self._proofs = Proofs()
        self._prover = Prover(
            rpc,
            self._proofs,
            head=lambda: self._heads.slot,
            publish=self._publish_proven,
            settings=settings,
            clock=clock,
        )
        self._confirmations = Confirmations()
        self._sessions: dict[int, Session] = {}
        self._heads = Heads()
        self._root = 0
        self._stopping = asyncio.Event()
        secure = any(url.startswith("wss:") for url in settings.ws_urls)
        self._tls = ssl.create_default_context() if secure else None  # once: it reads the machine's certificates
        self._outages = [Outage(f"{name}-{number}", url) for number, url in enumerate(settings.ws_urls)]
        self._gaps: Gaps | None = None
        self._signatures: Signatures | None = None
        self._fetcher: Fetcher | None = None
        self._without_whole: set[int] = set()
        """Endpoints whose last connection ended while they were asked for whole transactions: the next does not ask."""
        self._check: CrossCheck | None = None
        self._report()

    @property
    def wanted(self) -> tuple[Subscription, ...]:
        """What every session is to be subscribed to."""
        return self._wanted

    def update_subscriptions(self, texts: Sequence[str]) -> None:
        """Change what is subscribed while running, without reconnecting. Raises ConfigError and changes nothing."""
        self._wanted = parse_all(texts, self._resolve)
        kept = {subscription.feed for subscription in self._wanted}
        self._coverage = {feed: coverage for feed, coverage in self._coverage.items() if feed in kept}
        self._recent.keep(kept)
        if self._fetcher is not None:
            self._fetcher.keep(self._wanted)
        for session in self._sessions.values():
            session.follow_wanted()

    async def run(self, outlet: Outlet) -> Ending:
        """Deliver until `stop` or cancellation; no network is no end."""
        async with Supervisor(self._clock) as tasks:
            self._outlet, ledger = outlet, self._open_ledger(outlet)
            self._gaps = Gaps(self.name, ledger, clock=self._clock, outlet=outlet, tasks=tasks)
            self._signatures = Signatures(
                self.name, ledger, outlet=outlet, gaps=self._gaps, tasks=tasks, take=self._take
            )
            self._fetcher = Fetcher(
                self.name,
                self._rpc,
                settings=self._settings,
                clock=self._clock,
                outlet=outlet,
                gaps=self._gaps,
                recent=self._recent,
                tally=self._tally,
                tasks=tasks,
                restart=self._backoff,
            )
            for number, url in enumerate(self._settings.ws_urls):
                tasks.start(self.name, f"endpoint-{number}", partial(self._keep, number, url), restart=self._backoff())
            if self._settings.commitment == "processed":
                tasks.start(self.name, "proofs", self._prover.run, restart=self._backoff())
            tasks.start(self.name, "damage", self._declare_damage, restart=self._backoff())
            if self._rpc is not None:
                tasks.start(self.name, "check", partial(self._cross_check, self._rpc), restart=self._backoff())
                if self._settings.commitment == "processed":
                    tasks.start(
                        self.name, "confirm", partial(self._follow_verdicts, self._rpc), restart=self._backoff()
                    )
            try:
                await self._stopping.wait()
            finally:
                self._declare_unreadable()
                self._gaps.close()
                self.covered = self._suspend()
                tasks.cancel()
                self._standing.close()
        return Ending("stopped")

    def stop(self) -> None:
        """End `run`. Gaps that are being filled are declared unrecoverable."""
        self._stopping.set()

    # What sessions hand in.

    async def deliver(self, update: LogsUpdate | AccountUpdate | TransactionUpdate) -> None:
        """Put on the outlet; waits while that is full, and so does the node."""
        if not isinstance(update, AccountUpdate) and update.unproven:
            known = self._proofs.known(update.slot, update.signature)
            if known is False:
                self._tally.bad(update.source, "not_in_block")
                return
            if known:
                update = msgspec.structs.replace(update, unproven=False)
            else:
                await self._await_proof(update)
        if not self._outlet.put_nowait(update):
            await self._outlet.put(update)
        if isinstance(update, LogsUpdate | TransactionUpdate):
            self._recent.remember(update.feed, update.signature, update.slot)

    async def _await_proof(self, update: LogsUpdate | TransactionUpdate) -> None:
        """Nothing confirms the transaction before it is found in its block."""
        concerned = [wanted for wanted in self._wanted if wanted.feed == update.feed]
        now = self._clock.monotonic()
        crowded = self._proofs.delivered(update.slot, update.signature, update.err is None, concerned, now)
        if crowded:
            await self._publish_proven(crowded)

    async def _publish_proven(self, proven: Sequence[Proven]) -> None:
        """Publish what became of signatures; what nobody could tell is a gap of its feeds."""
        holes: dict[Subscription, Hole] = {}
        for each in proven:
            self._tally.proven(self.name, landed=len(each.landed), absent=len(each.absent), unknown=len(each.unknown))
            if each.absent:
                _log.warning("not_in_block", slot=each.slot, signatures=each.absent[:4], count=len(each.absent))
            update = LandingUpdate(
                source=self.name,
                feed=SLOTS.feed,
                received_ns=self._clock.wall_ns(),
                slot=each.slot,
                landed=each.landed,
                absent=each.absent,
                unknown=each.unknown,
            )
            if not self._outlet.put_nowait(update):
                await self._outlet.put(update)
            for subscription in each.feeds:
                low, high = holes.get(subscription, (each.slot, each.slot))
                holes[subscription] = Hole(min(low, each.slot), max(high, each.slot))
        for subscription, hole in holes.items():
            if self._gaps is not None:
                await self._gaps.declare_lost(subscription, hole, "transactions that no node confirmed")

    def landed(self, notice: LandedNotice) -> None:
        """A transaction is to be fetched."""
        if self._fetcher is not None and notice.subscription in self._wanted:
            self._fetcher.landed(notice)

    def unreadable(self, session: Session, lost: Unreadable) -> None:
        """A notification could not be read: the slot that it names is a gap, or all that the node is at now."""
        for subscription in lost.subscriptions:
            self._tally.unreadable(session.name, subscription.kind)
            hole = self._hole_of(session, subscription, lost.slot)
            if hole is not None and subscription.kind != "signature":
                self._damage.note(subscription, hole, lost.pubkey)

    def believes(self, session: Session, slot: int) -> bool:
        """Return whether `slot`, which the session's node named as its head, counts as such."""
        return self._hear(session.name, slot)

    def can_be(self, session: Session, slot: int) -> bool:
        """Return whether something that the session's node delivered can be of `slot`."""
        return self._heads.can_be(slot, session.name, self._clock.monotonic())

    async def slot_heard(self, session: Session, notice: SlotNotice, received_ns: int) -> None:
        """A head that counts: begins covers, bears witness for the other sessions, becomes slot updates."""
        self._head_heard(session, notice.root)
        self._confirmations.processed(notice.slot, notice.parent)
        await self._put_slot(session.name, notice.slot, "processed", notice.parent, received_ns)
        if notice.root > self._root:
            self._root = notice.root
            self._proofs.reached(notice.root)
            await self._put_slot(session.name, notice.root, "finalized", None, received_ns)

    def slot_shown(self, session: Session, slot: int) -> bool:
        """Something of `slot` came from a node that tells no slots, or `getSlot` stands for one: the node is there, if
        that counts, and the slot waits for a verdict all the same."""
        counts = self._hear(session.name, slot)
        self._confirmations.processed(slot)
        if counts and self._heads.of(session.name).slot != session.progress.head:
            self._head_heard(session)
        return counts

    def _hear(self, witness: str, slot: int) -> bool:
        """A witness named a slot. What it thereby takes back is counted, and forgotten where it was believed."""
        climb, before = self._heads.of(witness), self._heads.slot
        wild = climb.wild
        counts = self._heads.hear(witness, slot, self._clock.monotonic())
        if climb.wild > wild:
            self._tally.wild(witness)
            self._standing.wild(witness, climb.wildest, self._clock.monotonic())
        head = self._heads.slot
        if head < before or not before:
            self._confirmations.come_down(head)
            self._proofs.come_down(head)
            self._root = min(self._root, head)
        return counts

    def _head_heard(self, session: Session, root: int = 0) -> None:
        """The node is where its climb is: covers may begin there."""
        now, slot = self._clock.monotonic(), self._heads.of(session.name).slot
        session.watch.slot(slot, now)
        for feed, first_slot in (begun := session.progress.slot(slot, root, self._heads.others(session.name, now))):
            coverage = self._coverage.setdefault(feed, Coverage())
            self._declare(feed, coverage.begin(session.name, first_slot, self._heads.slot))
        for other in self._sessions.values():
            if other is not session:
                other.watch.witness(self._heads.others(other.name, now), now)
        if begun:
            self._note_whole(session)

    def acknowledged(self, session: Session, subscription: Subscription) -> None:
        """The node took a subscription."""
        if subscription.kind == "signature" and self._signatures is not None:
            self._signatures.subscribed(subscription)
        self._note_whole(session)
        if session.whole:
            self._report()

    def refused(self, session: Session) -> None:
        """The node does not bring some subscription."""
        self._note_whole(session)
        self._report()

    def signature_seen(self, session: Session, notice: SignatureNotice) -> None:
        """The transaction reached the commitment: deliver it whole, once."""
        if self._signatures is not None:
            self._signatures.landed(notice.subscription, notice.slot or session.progress.head)

    # One endpoint.

    async def _keep(self, number: int, url: str) -> None:
        """Connect, and connect again, for ever."""
        backoff = self._backoff()
        breaker = self._breakers[number] if number < len(self._breakers) else None
        self._let_go(number, "closed")  # what a crash of this task left behind
        while True:
            if breaker is None or breaker.allow(self._clock.monotonic()):
                session = self._connect_anew(number, url)
                parting = await session.run()
                self._let_go(number, parting.reason)
                now = self._clock.monotonic()
                was_well = session.watch.head > 0 and now - session.began > self._settings.stall_s
                if was_well:
                    backoff.reset()
                if breaker is not None and session.watch.head:
                    breaker.success()
                elif breaker is not None:
                    breaker.failure(now)
                self._tally.lost(session.name, parting.reason)
                self._outages[number].lost(now, parting.reason, parting.detail, was_well=was_well)
                self._standing.lost(parting)
                self._report()
                pause_s = max(backoff.next_s(), parting.rest_s)
                await self._clock.sleep(max(pause_s, backoff.max_s) if parting.reason == "denied" else pause_s)
            else:
                await self._clock.sleep(breaker.retry_in_s(self._clock.monotonic()))

    def _connect_anew(self, number: int, url: str) -> Session:
        name = f"{self.name}-{number}"
        session = Session(
            name,
            url,
            number=number,
            tls=self._tls,
            settings=self._settings,
            clock=self._clock,
            desk=self,
            tally=self._tally,
            ask_whole=self._settings.transaction_subscribe and number not in self._without_whole,
        )
        self._without_whole.discard(number)
        self._sessions[number] = session
        return session

    def _let_go(self, number: int, reason: str) -> None:
        """Account for what the session surely brought; what no other covers is a gap."""
        session = self._sessions.pop(number, None)
        if session is None:
            return
        if session.registry.whole_unanswered:
            self._without_whole.add(number)
        for feed, last_slot in _surely(session, reason).items():
            coverage = self._coverage.setdefault(feed, Coverage())
            self._declare(feed, coverage.end(session.name, last_slot))
        self._heads.forget(session.name)

    def _suspend(self) -> dict[str, int]:
        """All sessions end at once: how far each feed is covered."""
        ends: dict[str, dict[str, int]] = {feed: {} for feed in self._coverage}
        for session in self._sessions.values():
            for feed, last_slot in _surely(session).items():
                ends.setdefault(feed, {})[session.name] = last_slot
        head = self._heads.slot
        reached = {
            feed: self._coverage.get(feed, Coverage()).suspend(last_slots, head) for feed, last_slots in ends.items()
        }
        return {feed: self._fetched(feed, slot) for feed, slot in reached.items() if slot is not None}

    def _fetched(self, feed: str, slot: int) -> int:
        """How far a feed is covered, for what is not fetched yet is not."""
        oldest = self._fetcher.oldest(feed) if self._fetcher is not None else None
        return slot if oldest is None else min(slot, oldest - 1)

    def _note_whole(self, session: Session) -> None:
        """Whole for the first time? Later changes of what is wanted do not make it less so."""
        if session.complete and session.progress.covering and not session.whole:
            session.whole = True
            self._outages[session.number].recovered(self._clock.monotonic(), session.watch.head)
            self._report()

    def _hole_of(self, session: Session, subscription: Subscription, slot: int | None) -> Hole | None:
        """Where a notification belongs that could not be read; None where nothing was promised yet."""
        head = session.progress.head or self._heads.slot
        if head and slot is not None and head - _PAST_SLOTS <= slot <= head + _AHEAD_SLOTS:
            return Hole(slot, slot)
        reached = session.progress.surely(alive=(subscription.feed,)).get(subscription.feed)
        return Hole(min(reached, head) + 1, head + 1) if head and reached is not None else None

    async def _declare_damage(self) -> None:
        """Once per `confirm_s`: declare what could not be read."""
        while True:
            await self._clock.sleep(self._settings.confirm_s)
            self._declare_unreadable()

    def _declare_unreadable(self) -> None:
        losses = self._damage.take()
        for loss in losses:
            if loss.subscription in self._wanted and self._gaps is not None:
                self._gaps.add(loss.subscription, loss.hole, loss.pubkeys)
        if losses:
            self._report()

    def _declare(self, feed: str, hole: Hole | None) -> None:
        for subscription in self._wanted:
            if hole is not None and subscription.feed == feed and self._gaps is not None:
                self._gaps.add(subscription, hole)

    # What is asked over HTTP.

    def _open_ledger(self, outlet: Outlet) -> Ledger | None:
        if self._rpc is None:
            return None
        return Ledger(
            self.name,
            self._rpc,
            settings=self._settings,
            clock=self._clock,
            outlet=outlet,
            tally=self._tally,
            recent=self._recent,
        )

    def _take(self, subscription: Subscription) -> bool:
        """A `signature:` subscription is answered; whether it was still wanted."""
        if subscription not in self._wanted:
            return False
        self._wanted = tuple(kept for kept in self._wanted if kept != subscription)
        return True

    async def _cross_check(self, rpc: Rpc) -> None:
        """Once per `check_s`: cross-check the streams."""
        self._check = CrossCheck(
            rpc,
            settings=self._settings,
            clock=self._clock,
            tally=self._tally,
            recent=self._recent,
            head_told=partial(self._hear, f"{self.name}-http"),
            others_head=lambda witness: self._heads.others(witness, self._clock.monotonic()),
            slot_shown=self.slot_shown,
        )
        while True:
            await self._clock.sleep(self._settings.check_s)
            await self._check.once(self._sessions.values(), self._wanted)
            self._report()

    async def _follow_verdicts(self, rpc: Rpc) -> None:
        async def tell(verdict: Verdict) -> None:
            if verdict.status == "dead":
                self._proofs.died(verdict.slot)
            else:
                self._proofs.reached(verdict.slot)
            await self._put_slot(self.name, verdict.slot, verdict.status, verdict.parent, self._clock.wall_ns())

        await follow_verdicts(self.name, rpc, self._confirmations, tell, settings=self._settings, clock=self._clock)

    async def _put_slot(self, source: str, slot: int, status: SlotStatus, parent: int | None, at_ns: int) -> None:
        update = SlotUpdate(source=source, feed=SLOTS.feed, received_ns=at_ns, slot=slot, status=status, parent=parent)
        if not self._outlet.put_nowait(update):
            await self._outlet.put(update)

    def _backoff(self) -> Backoff:
        return Backoff(self._settings.backoff_initial_s, self._settings.backoff_max_s, rng=self._rng)

    def _report(self) -> None:
        self._standing.report(
            self._sessions.values(),
            len(self._wanted),
            open_gaps=self._gaps.open if self._gaps is not None else 0,
            http_fault=self._check.fault if self._check is not None else "",
            now=self._clock.monotonic(),
            ahead=self._heads.ahead(),
            proofs=self._prover.state,
        )


def _surely(session: Session, reason: str = "") -> dict[str, int]:
    """Feed → the slot up to which the session surely brought all."""
    trust_head = reason != "feed_stands" and SLOTS not in session.registry.refused
    return session.progress.surely(trust_head=trust_head)
