"""Text on both sides of a model, without torch: prompts to tokens, tokens to text."""
