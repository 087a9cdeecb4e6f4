"""The Valkey server that the tests of the shared bus use."""

from tests.redis.servers import valkey

__all__ = ["valkey"]
