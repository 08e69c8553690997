"""Clients that other people wrote, against a server of ours."""
