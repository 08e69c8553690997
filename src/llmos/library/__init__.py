"""What is known of models before one is here, and which of those here a task should have."""
