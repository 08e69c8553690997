"""Ring 0: the pure core, the loop that applies its decisions, and the one gate in front."""
