"""What is learned: each module turns rows into examples, a model and a way to measure it."""
