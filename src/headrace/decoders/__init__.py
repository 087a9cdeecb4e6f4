"""Turns bytes into named fields: compiles Anchor IDLs to fast decoders, and finds events in transactions. Pure."""
