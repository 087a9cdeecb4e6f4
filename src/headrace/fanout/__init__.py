"""Delivers each topic's messages to its subscribers, from any position of its log. Frames are built once for all."""
