"""Measures, as code: one module per result, ours and its peer in one run (`make bench-NAME`)."""
