"""Decisions; no I/O, no clock."""
