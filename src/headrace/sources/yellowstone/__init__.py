"""Yellowstone gRPC as a source."""
