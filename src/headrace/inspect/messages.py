"""The messages that the stream would publish for the contents of a file, as lines of JSON."""

from collections.abc import Callable, Iterable, Iterator

from headrace.cores.bodies import json_text
from headrace.ingest.pipeline import Pipeline
from headrace.inspect.recognise import Found
from headrace.inspect.transactions import UNSIGNED
from headrace.model.events import Publication
from headrace.model.updates import AccountUpdate


class MessageLines:
    """The messages of one stream that receives all contents in order, so that a repeat publishes nothing again.

    A transaction without a signature (a simulation) can't be recognised as a repeat, so each gets its own stream.
    """

    def __init__(self, new_pipeline: Callable[[], Pipeline]) -> None:
        self._new_pipeline = new_pipeline
        self._pipeline = new_pipeline()

    def of(self, found: Iterable[Found]) -> Iterator[bytes]:
        """Yield a line of JSON for each message: its frame without epoch and offset.

        A line is `{"topic","type","event_id","data","chain"}`. Records other than events have `topic`, `type` and
        `data`.
        """
        for each in found:
            unsigned = not isinstance(each, AccountUpdate) and each.signature in UNSIGNED
            pipeline = self._new_pipeline() if unsigned else self._pipeline
            for publication in pipeline.apply(each):
                for topic in publication.topics:
                    yield _line(topic.name, publication)


def _line(topic: str, publication: Publication) -> bytes:
    return b'{"topic":%b,"type":"%b",%b}' % (
        json_text(topic),
        publication.kind.encode(),
        publication.body,
    )
