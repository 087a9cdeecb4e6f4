"""How bytes come and go: HTTP/1.1, WebSocket, event streams and TLS."""
