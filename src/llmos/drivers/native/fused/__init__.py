"""The native driver's own forward on CPU: a described decoder, run by fused kernels."""
