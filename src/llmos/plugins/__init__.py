"""Plugins: what other distributions add, found by entry points. Built-ins are plugins too."""
