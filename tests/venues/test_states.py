"""Contents of accounts against a chain that keeps everything: whatever forks, no content is of a dead slot."""

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.model.facts import Dead, Finalized
from headrace.programs.quoting import Account
from headrace.venues.states import VERSIONS_MAX, AccountStates
from tests.examples import examples

KEY = "a"


def content(number: int) -> Account:
    return Account("owner", bytes([number % 256, number // 256]))


class Slot:
    """A slot of the chain: whether it changes the account, whether a fork leaves it, whether a node is asked there."""

    def __init__(self, number: int, *, changes: bool, dead: bool, asked: bool) -> None:
        self.number, self.changes, self.dead, self.asked = number, changes, dead, asked


slots = st.lists(st.tuples(st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=40).map(
    lambda drawn: [
        Slot(n, changes=changes, dead=dead, asked=asked) for n, (changes, dead, asked) in enumerate(drawn, 100)
    ]
)


@given(chain=slots, final=st.integers(100, 140))
@settings(max_examples=examples(400), deadline=None)
def test_contents_are_those_of_the_chain_that_stands(chain: list[Slot], final: int) -> None:
    states = AccountStates()
    truth = {99: content(0)}  # slot that stands → content at its end
    states.read(KEY, 99, truth[99])
    standing = 99
    for slot in chain:
        here = content(slot.number) if slot.changes else truth[standing]
        if slot.changes:
            states.changed(KEY, slot.number, content(1), certain=False)
            states.changed(KEY, slot.number, here, certain=False)
        if slot.asked:
            states.read(KEY, slot.number, here)
        states.extend(KEY, slot.number)
        if slot.dead:
            states.decide(Dead(slot.number, "fork"))
        else:
            standing, truth[slot.number] = slot.number, here
    last_final = max((number for number in truth if number <= final), default=99)
    states.decide(Finalized(last_final))
    known = states.get(KEY)
    if known is None:
        return  # an answer of a dead slot was all there was
    for number, expected in truth.items():
        if max(known.first, last_final) <= number <= known.upto:
            assert known.at(number) == expected
    assert states.size == sum(len(each.data) for _, each in known.versions if each is not None)


def test_an_answer_of_a_dead_slot_is_forgotten() -> None:
    states = AccountStates()
    states.read(KEY, 100, content(1))
    states.changed(KEY, 101, content(2), certain=False)
    states.decide(Dead(100, "fork"))
    assert states.get(KEY) is None
    assert states.size == 0


def test_an_older_answer_changes_nothing() -> None:
    states = AccountStates()
    states.read(KEY, 100, content(2))
    states.read(KEY, 90, content(1))
    known = states.get(KEY)
    assert known is not None
    assert (known.newest, known.first, known.upto) == (content(2), 100, 100)


def test_a_first_change_is_known_once_its_slot_is_complete() -> None:
    states = AccountStates()
    states.changed(KEY, 100, content(1), certain=False)
    known = states.get(KEY)
    assert known is not None
    assert known.first > known.upto
    states.extend(KEY, 100)
    assert (known.first, known.upto) == (100, 100)


def test_finalized_versions_are_dropped_and_versions_are_bounded() -> None:
    states = AccountStates()
    states.read(KEY, 0, content(0))
    for slot in range(1, 2 * VERSIONS_MAX):
        states.changed(KEY, slot, content(slot), certain=False)
    known = states.get(KEY)
    assert known is not None
    assert len(known.versions) == VERSIONS_MAX
    states.decide(Finalized(2 * VERSIONS_MAX - 2))
    assert [slot for slot, _ in known.versions] == [2 * VERSIONS_MAX - 2, 2 * VERSIONS_MAX - 1]


def test_a_certain_change_keeps_one_older_content() -> None:
    states = AccountStates()
    for slot in (100, 101, 102):
        states.changed(KEY, slot, content(slot), certain=True)
    known = states.get(KEY)
    assert known is not None
    assert [slot for slot, _ in known.versions] == [101, 102]
    assert known.at(101) == content(101)
