"""Evaluation: examples that are answered already, asked of models, scored and compared."""
