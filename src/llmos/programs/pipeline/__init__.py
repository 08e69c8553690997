"""Pipelines: declared steps, each a child job."""
