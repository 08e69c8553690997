"""The `llmos` command: one file per command group, everything through the sdk.

Start-up is light: a command loads what it needs when it runs, so `--help` loads none of it.
"""
