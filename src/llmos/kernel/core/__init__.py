"""PURE: `step(state, events, now_ns) -> decisions`. No clock, no randomness, no I/O."""
