"""Snapshots of suspended requests as files: for every driver, without its engine."""
