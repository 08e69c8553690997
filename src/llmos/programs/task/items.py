"""Tasks that a model made for them does: many inputs in one call, answered item by item."""
