"""The history on SQLite: a main file, and a file for each segment of about 500,000 trades.

A single file becomes slower as its indexes grow, and deleting rows from it delays writes. Deleting the file of a
segment is cheap. A segment contains all data of its trades, including keys, so its deletion leaves nothing behind.
"""
