"""Framing, codec and channels: how messages of `abi` travel."""
