"""The client wire protocol `stream.v1`: frames, codes and the session machine. Pure, used by both ends."""
