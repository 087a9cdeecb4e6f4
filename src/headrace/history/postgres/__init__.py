"""The history on PostgreSQL (14 or newer): common tables, and tables for each segment of about 500,000 trades.

A segment has the trades of a range of slots, and everything that only these trades need: their keys, indexes and
candles. Dropping its tables is cheap and leaves nothing behind. The segments of a SQLite history are cut in the same
way, and not by days, because a day may be larger than the limit of all.
"""
