"""One OS process: it holds one replica, runs one program, or tokenizes. Light: the engine is all
it imports."""
