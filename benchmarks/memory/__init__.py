"""Parts of bench-memory."""
