"""Metrics of a source. Connections count their traffic as plain numbers, which are added once a tick."""

from collections import Counter as Count

from headrace.runtime.metrics import Metrics


class SourceMetrics:
    """Metrics labelled by `source`: the connection (`rpc-0`), or the source (`rpc`) for work over HTTP."""

    def __init__(self, metrics: Metrics) -> None:
        self._messages = metrics.counter("source_messages", "Messages that a source received", ("source",))
        self._bytes = metrics.counter("source_bytes", "Bytes that a source received", ("source",))
        self._bad = metrics.counter("source_bad_messages", "Messages that were skipped", ("source", "reason"))
        self._unreadable = metrics.counter(
            "source_unreadable", "Notifications that could not be read; each lies in a declared gap", ("source", "kind")
        )
        self._proofs = metrics.counter(
            "source_proofs",
            "Delivered transactions by what became of them: landed, absent from their block, unknown to all nodes",
            ("source", "result"),
        )
        self._wild = metrics.counter(
            "source_wild_slots", "Slots that a witness of the head told of and nothing bore out", ("source",)
        )
        self._unknown = metrics.counter(
            "source_unknown_subscriptions", "Notifications under an id that was not subscribed", ("source",)
        )
        self._reconnects = metrics.counter("source_reconnects", "Connections that were lost", ("source", "reason"))
        self._refilled = metrics.counter("source_refilled", "Updates that were fetched to fill gaps", ("source",))
        self._lag = metrics.gauge("source_lag_slots", "Slots that a stream is behind getSlot", ("source",))

        self._calls = metrics.counter(
            "source_transaction_calls", "getTransaction calls for transactions: feeds", ("source", "outcome")
        )
        self._fetched = metrics.counter(
            "source_transactions_fetched", "Whole transactions that were fetched for transactions: feeds", ("source",)
        )
        self._lost_transactions = metrics.counter(
            "source_transactions_lost",
            "Transactions that could not be fetched: they are in a gap",
            ("source", "reason"),
        )
        self._waiting = metrics.gauge(
            "source_transactions_waiting", "Transactions that landed and are not fetched yet", ("source",)
        )

        self._first = metrics.counter("source_first", "Blocks that an endpoint finished first", ("source",))
        self._missed = metrics.counter(
            "source_missed", "Blocks that an endpoint never finished although another did", ("source",)
        )
        self._behind = metrics.gauge(
            "source_behind_seconds", "How far an endpoint's newest block was behind the first endpoint's", ("source",)
        )

    def placed(self, source: str, behind_s: float) -> None:
        """Show how far an endpoint was behind the first endpoint with a block.

        If it is 0, also count it as the first.
        """
        self._behind.labels(source).set(behind_s)
        if not behind_s:
            self._first.labels(source).inc()

    def missed(self, source: str) -> None:
        """Count a block that an endpoint never finished."""
        self._missed.labels(source).inc()

    def transaction_calls(self, source: str, outcome: str, count: int) -> None:
        """Count getTransaction calls for `transactions:` feeds."""
        self._calls.labels(source, outcome).inc(count)

    def fetched(self, source: str) -> None:
        """Count a whole transaction that was fetched."""
        self._fetched.labels(source).inc()

    def transaction_lost(self, source: str, reason: str) -> None:
        """Count a transaction that could not be fetched."""
        self._lost_transactions.labels(source, reason).inc()

    def transactions_waiting(self, source: str, count: int) -> None:
        """Show how many transactions wait to be fetched."""
        self._waiting.labels(source).set(count)

    def traffic(self, source: str, messages: int, size: int, unknown: int, bad: Count[str]) -> None:
        """Add the counts of one connection since the last call."""
        if messages:
            self._messages.labels(source).inc(messages)
            self._bytes.labels(source).inc(size)
        if unknown:
            self._unknown.labels(source).inc(unknown)
        for reason, count in bad.items():
            self._bad.labels(source, reason).inc(count)

    def bad(self, source: str, reason: str) -> None:
        """Count a message or answer that was skipped."""
        self._bad.labels(source, reason).inc()

    def proven(self, source: str, **counts: int) -> None:
        """Count delivered transactions by the results of their proofs."""
        for result, count in counts.items():
            if count:
                self._proofs.labels(source, result).inc(count)

    def wild(self, source: str) -> None:
        """Count a slot that a witness reported and nothing confirmed."""
        self._wild.labels(source).inc()

    def unreadable(self, source: str, kind: str) -> None:
        """Count a notification that could not be read."""
        self._unreadable.labels(source, kind).inc()

    def lost(self, source: str, reason: str) -> None:
        """Count a connection that ended."""
        self._reconnects.labels(source, reason).inc()

    def refilled(self, source: str) -> None:
        """Count an update that was fetched to fill a gap."""
        self._refilled.labels(source).inc()

    def lag(self, source: str, slots: int) -> None:
        """Show how many slots a connection is behind."""
        self._lag.labels(source).set(slots)
