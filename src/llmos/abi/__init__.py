"""The contract: everything that crosses a process, and every seam. Light: needs msgspec only."""

ABI_VERSION = 4
"""Raised by one whenever a message or a Protocol of this package changes incompatibly."""
