"""Messages of Yellowstone gRPC, made from geyser.proto."""

from headrace.sources.yellowstone.messages import geyser_pb2 as geyser

__all__ = ["geyser"]
