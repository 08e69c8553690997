"""Admission orders, one module each. Pure; chosen by `kernel.policy`."""
