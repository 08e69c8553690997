"""Adapters as they are loaded: merged into their base, or beside it."""
