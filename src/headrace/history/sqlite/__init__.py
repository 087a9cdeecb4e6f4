"""The history on SQLite: a main file, and segments of about 500,000 trades, each a file of its own.

One growing file becomes slower with its indexes, and deleting from it stalls whoever writes; a segment costs nothing to
drop. A segment has all that its trades need, their keys too, so nothing is left of it elsewhere.
"""
