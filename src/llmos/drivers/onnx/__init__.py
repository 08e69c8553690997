"""Models in ONNX files, for the kinds of work that it knows, without PyTorch."""
