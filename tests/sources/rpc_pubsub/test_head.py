"""Which slots can be the chain's head."""

from headrace.sources.rpc_pubsub.head import JUMP_MAX, STALE_S, Head


def test_the_first_and_what_follows_is_believed() -> None:
    head = Head()
    assert head.hear(447_000_000, 0)
    assert head.hear(447_000_000 + JUMP_MAX, 1)
    assert head.hear(447_000_000, 2)
    assert head.slot == 447_000_000 + JUMP_MAX


def test_a_wild_number_is_not() -> None:
    head = Head()
    head.hear(1000, 0)
    assert not head.hear(2**62, 1)
    assert not head.hear(1001 + JUMP_MAX, 1)
    assert head.slot == 1000


def test_after_a_long_silence_of_everybody_it_may_be_true() -> None:
    head = Head()
    head.hear(1000, 0)
    head.hear(1001, 10)
    assert not head.hear(10**8, 10 + STALE_S - 1)
    assert head.hear(10**8, 10 + STALE_S)
