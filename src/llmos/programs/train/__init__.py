"""Training: a recipe, data and perhaps a model go in, a model version comes out."""
