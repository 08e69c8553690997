"""One program per peer, each run by the Python of a virtual environment of its own.

A program imports nothing of LLMOS but `benchmarks.engine.peers`, which needs no library. Beside it
lies NAME.txt, the pinned requirements of its environment.
"""
