"""The description of a decoder, and the forward that follows it."""
