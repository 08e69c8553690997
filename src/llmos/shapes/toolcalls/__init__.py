"""Calls of tools in what models write: one reader per format, the same streamed or whole."""
