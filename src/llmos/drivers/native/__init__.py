"""The native driver: decoder-only Transformers models, batched at every step by our own loop."""
