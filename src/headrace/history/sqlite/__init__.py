"""The history on SQLite: a main file, and a file for each segment of about 500,000 trades.

A single growing file becomes slower as its indexes grow, and deleting from it delays writes. A segment is deleted at no
cost. It contains everything that its trades need, including keys, so that its deletion leaves nothing behind.
"""
