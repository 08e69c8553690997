"""Every command of the documents, run against a real server."""
