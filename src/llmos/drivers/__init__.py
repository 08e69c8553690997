"""Adapters of engines behind `abi.Driver`, one file or folder each, named by entry strings."""
