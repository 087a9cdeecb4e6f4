"""The pipeline as tests look at it: a publication for each topic."""

import msgspec

from headrace.ingest.pipeline import Pipeline
from headrace.model.events import Publication
from headrace.model.updates import AnyUpdate


class SpreadPipeline(Pipeline):
    """Pipeline that makes of a publication on several topics one for each."""

    def apply(self, update: AnyUpdate) -> list[Publication]:
        return [
            msgspec.structs.replace(each, topics=(topic,)) for each in super().apply(update) for topic in each.topics
        ]
