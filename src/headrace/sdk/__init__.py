"""The client that users import: follow topics of a Headrace server and lose nothing without being told."""

from headrace.sdk.follow import Refused, follow

__all__ = ["Refused", "follow"]
