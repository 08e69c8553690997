"""The pages: each file has one, as its `PAGE`."""
