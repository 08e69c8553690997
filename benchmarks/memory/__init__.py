"""What a replica's memory comes to: said before loading, reported while it runs, had again."""
