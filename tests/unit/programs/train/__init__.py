"""What of training needs no torch."""
