"""What fewer bits cost: the parts of `bench_quality`."""
