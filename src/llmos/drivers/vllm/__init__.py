"""Safetensors models through vLLM's AsyncLLM, in an environment of its own."""
