"""One figure of `make bench-sched` each: `measure(context)` adds its rows to the result."""
