"""Shapes of request and answer bodies, and the one way a body becomes one of them."""
