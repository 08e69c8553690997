"""One OS process holding one replica, or tokenizing. Light: the engine is all it imports."""
