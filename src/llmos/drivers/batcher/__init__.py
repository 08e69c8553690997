"""Engines that batch and draw by themselves, behind one driver: tokens in, tokens out."""
