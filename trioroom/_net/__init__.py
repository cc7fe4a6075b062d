"""Trio at the edges: sockets, tasks, deadlines."""
