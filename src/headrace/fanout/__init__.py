"""Carry each topic's messages to its subscribers, framed once for all of them, from any position of its log."""
