"""Metrics and logs: what the system tells of itself."""
