"""Receives and sends bytes: HTTP/1.1, WebSocket, event streams and TLS."""
