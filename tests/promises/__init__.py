"""The delivery promises held against a model, whatever clients, servers and connections do."""
