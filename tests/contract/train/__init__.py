"""Training: objectives, methods, exact resume, in this process."""
