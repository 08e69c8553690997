"""Nodes: where workers are started and reached."""
