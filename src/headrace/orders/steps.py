"""Where the machine meets the store: each step names the status it leaves, and what the owner is told of it."""

from typing import Any

from msgspec.structs import replace

from headrace.model.orders import Attempt, Change, Order, OrderStatus, Outcome
from headrace.orders import machine
from headrace.orders.machine import Step, Trace
from headrace.orders.store import Store
from headrace.protocol.orders import told


class Steps:
    """Takes steps of orders that are held under a lease. All but the `…_later` ones return after their commit."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def take(
        self,
        order: Order,
        step: Step,
        outcome: Outcome | None = None,
        *,
        attempt: Attempt | None = None,
        trace: Trace | None = None,
        rest_ms: int | None = None,
    ) -> Order:
        """The order after `step`. `attempt` is new, or has learnt `trace`. Raises LeaseLost: then nothing happened."""
        return await self._store.apply(order, _change(order, step, outcome, attempt, trace, rest_ms))

    def take_later(self, order: Order, step: Step, outcome: Outcome | None = None) -> Order:
        """`take` without waiting: only for steps after which nothing leaves this process until a `take` returned."""
        return self._store.apply_later(order, _change(order, step, outcome, None, None, None))

    def note(self, order: Order, attempt: Attempt, trace: Trace) -> Attempt:
        """Write down what is known of an attempt that is still open."""
        if (attempt.status, trace) not in machine.ATTEMPTS:
            return attempt
        learnt = replace(attempt, status=machine.attempt_after(attempt.status, trace))
        self._store.note(order, learnt, machine.attempt_leaves(learnt.status))
        return learnt


def _change(
    order: Order,
    step: Step,
    outcome: Outcome | None,
    attempt: Attempt | None,
    trace: Trace | None,
    rest_ms: int | None,
) -> Change:
    to = machine.after(order.status, step)
    outcome = outcome or order.outcome
    if attempt is not None and trace is not None:
        attempt = replace(attempt, status=machine.attempt_after(attempt.status, trace))
    return Change(
        kind=step.value,
        leaves=(order.status,),
        to=to,
        outcome=outcome,
        attempt=attempt,
        attempt_leaves=machine.attempt_leaves(attempt.status) if attempt is not None and trace is not None else (),
        rest_ms=rest_ms,
        data=_data(order, to, outcome, step),
    )


def _data(order: Order, to: OrderStatus, outcome: Outcome, step: Step) -> dict[str, Any]:
    """What the owner learns with this step: the parts of the outcome that it set."""
    data = told(order.request, to, outcome, before=order.outcome)
    if step is Step.RETRIED:
        data["retry"] = outcome.failed_tries
    if step is Step.RESTED:
        data["resting"] = True
    return data
