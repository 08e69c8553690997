"""The pure core under a virtual clock, with simulated workers: no server, no thread, no wait."""
