"""What the stream publishes for things that were found in a file, as lines of JSON."""

from collections.abc import Callable, Iterable, Iterator

from headrace.cores.bodies import json_text
from headrace.ingest.pipeline import Pipeline
from headrace.inspect.recognise import Found
from headrace.inspect.transactions import UNSIGNED
from headrace.model.events import Publication
from headrace.model.updates import AccountUpdate


class MessageLines:
    """The messages of one stream that brings the found things in their order, so that a repeat publishes nothing twice.

    What was never signed (a simulation) has no name by which a repeat could be known: each is a stream of its own.
    """

    def __init__(self, new_pipeline: Callable[[], Pipeline]) -> None:
        self._new_pipeline = new_pipeline
        self._pipeline = new_pipeline()

    def of(self, found: Iterable[Found]) -> Iterator[bytes]:
        """Yield a line for each message, a frame without its place in a log.

        A line is `{"topic","type","event_id","data","chain"}`.

                Other records than events have `topic`, `type` and `data`.
        """
        for each in found:
            unsigned = not isinstance(each, AccountUpdate) and each.signature in UNSIGNED
            pipeline = self._new_pipeline() if unsigned else self._pipeline
            yield from map(_line, pipeline.apply(each))


def _line(publication: Publication) -> bytes:
    return b'{"topic":%b,"type":"%b",%b}' % (
        json_text(publication.topic),
        publication.kind.encode(),
        publication.body,
    )
