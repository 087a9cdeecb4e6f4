"""The core in Python, which reads every update. A function generated for each layout turns bytes into JSON text."""

from collections.abc import Mapping

from headrace.cores import UNREADABLE, AccountText, EventText, TransactionText, TransactionView, Unread
from headrace.cores.bodies import TransactionFrame, account_body, transaction_body
from headrace.cores.text_function import LayoutText
from headrace.decoders.compiler import Layout
from headrace.decoders.events import FoundEvent, read_events
from headrace.decoders.instructions import instructions_of
from headrace.decoders.registry import FoundPart, LayoutTable, Program, Programs, beyond_zeros
from headrace.model.events import NamedInstruction
from headrace.model.facts import Origin
from headrace.model.updates import AccountUpdate, TransactionUpdate
from headrace.programs.meanings import AccountFacts, EventFacts
from headrace.programs.register import ACCOUNTS, EVENTS

_NO_VALUES: dict[str, object] = {}


class PythonCore:
    """`Core` that is always available."""

    name = "python"

    def __init__(self, programs: Programs) -> None:
        self._programs = programs
        self._texts: dict[Layout, LayoutText] = {}

    def account(self, update: AccountUpdate, event_id: str, origin: Origin) -> AccountText:
        program = self._programs.by_id.get(update.owner)
        found = None if program is None else program.find_account(update.data)
        if program is None or found is None:
            shown = update.owner if program is None else program.name
            return AccountText(None, account_body(update, event_id, origin, shown, None, b"null"), _NO_VALUES)
        text, leftover, values = self._text_of(found).read(update.data, found.start)
        found.table.count(beyond_zeros(update.data, leftover))
        name = found.layout.name
        return AccountText(name, account_body(update, event_id, origin, program.name, name, text.encode()), values)

    def transaction(self, update: TransactionView, origin: Origin, *, truncated: bool) -> TransactionText:
        frame = TransactionFrame(origin)
        texts: list[EventText] = []
        unread: list[Unread] = []
        for found in read_events(update, self._programs).events:
            try:
                texts.append(self._event(found, frame))
            except UNREADABLE as error:
                unread.append(Unread.of(found.part.program.name, found.part.layout.name, error))
        instructions: list[NamedInstruction] = []
        if isinstance(update, TransactionUpdate):
            instructions = instructions_of(update, self._programs)
        body = transaction_body(update, frame, [text.event for text in texts], instructions, truncated=truncated)
        return TransactionText(texts, instructions, body, unread)

    def _event(self, found: FoundEvent, frame: TransactionFrame) -> EventText:
        part = found.part
        text, leftover, values = self._text_of(part).read(part.data, part.start)
        part.table.count(leftover)
        event = found.event(values, leftover)
        return EventText(event, frame.event(event, event.path, event.ordinal, text.encode()))

    def _text_of(self, part: FoundPart) -> LayoutText:
        text = self._texts.get(part.layout)
        if text is None:
            text = self._texts[part.layout] = _new_text(part)
        return text


def _new_text(part: FoundPart) -> LayoutText:
    program, layout = part.program, part.layout
    layouts = program.accounts if part.table is program.account_table else program.events
    return LayoutText(layout, layouts[layout.name].encode_json, wanted_of(program, part.table, layout))


def wanted_of(program: Program, table: LayoutTable, layout: Layout) -> list[str]:
    """Return the names of the fields that the meaning of the event or account reads, in the layout's order."""
    meanings: Mapping[tuple[str, str], AccountFacts | EventFacts]
    meanings = ACCOUNTS if table is program.account_table else EVENTS
    meaning = meanings.get((program.name, layout.name))
    return [] if meaning is None else [name for name in layout.names if meaning.wants(name)]
