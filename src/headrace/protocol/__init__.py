"""The client wire protocol `stream.v1`: frames, codes and the server's session. Pure; server and SDK both use it."""
