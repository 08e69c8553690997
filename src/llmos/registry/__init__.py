"""Named, versioned, immutable models. Knows storage and weight files; no drivers, no kernel."""
