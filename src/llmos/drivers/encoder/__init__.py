"""Models that answer item by item, by Transformers' classes: encoders, and those with a decoder."""
