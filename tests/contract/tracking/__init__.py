"""Trackers of runs: one suite over every sink."""
