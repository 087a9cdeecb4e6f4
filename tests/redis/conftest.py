"""The server that these tests share."""

from tests.redis.servers import valkey

__all__ = ["valkey"]
