"""How good answers are: figures of many examples, each with what its own weight would change."""
