"""Jobs at the edge: claimed from the store, run in workers or as calls, and put back on disk."""
