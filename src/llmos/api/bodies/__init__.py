"""Shapes of the bodies that only our own API has."""
