"""The parts of `bench_train`, and what they share."""
