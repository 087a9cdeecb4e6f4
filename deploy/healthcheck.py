"""Exit with 0 if the server in this container lives, else with 1 and a line that says why. Needs Python alone.

`SERVER_PORT` (or `PORT`) and `TLS_CERT_FILE` count as they do for the server, if they are in the environment. The
certificate is not checked, since its name is not that of the loopback address.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request


def main() -> None:
    """Ask `/health/live` once."""
    port = os.environ.get("SERVER_PORT") or os.environ.get("PORT") or "8080"
    scheme = "https" if os.environ.get("TLS_CERT_FILE") else "http"
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]
    if scheme == "https":
        handlers.append(urllib.request.HTTPSHandler(context=ssl._create_unverified_context()))  # noqa: S323
    try:
        urllib.request.build_opener(*handlers).open(f"{scheme}://127.0.0.1:{port}/health/live", timeout=4).close()
    except OSError as error:  # an answer of 4xx or 5xx too
        sys.exit(f"not alive: {error}")


if __name__ == "__main__":
    main()
