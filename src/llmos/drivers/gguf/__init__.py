"""GGUF files through llama.cpp, by llama-cpp-python's low-level interface."""
