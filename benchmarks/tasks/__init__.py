"""Parts of `bench_tasks`: the rows, the peer in a process of its own, the picture of the report."""
