"""The two small encoders that come with LLMOS: feelings of a text, and vectors of texts."""
