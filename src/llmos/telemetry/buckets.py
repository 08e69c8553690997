"""Upper bounds of the histograms: vLLM's where the name is vLLM's, OpenTelemetry's where theirs.

Durations in seconds.
"""

from __future__ import annotations

TTFT_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
TTFT_LONG_S = (*TTFT_S, 20, 40, 80, 160, 640, 2560)
ITL_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75)
ITL_LONG_S = (*ITL_S, 1, 2.5, 5)
REQUEST_S = (0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120)
REQUEST_LONG_S = (*REQUEST_S, 240, 960)
PART_S = (0.001, 0.005, *REQUEST_LONG_S)
"""Of parts of a request: some are far shorter than a request of vLLM's ever is."""

TOKENS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000, 100_000)
STEP_TOKENS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384)
CHOICES = (1, 2, 5, 10, 20)
PREEMPTIONS = (0, 1, 2, 5, 10, 20, 50)
STEP_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5)
WRITE_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
SIZES = tuple(float(1 << bits) for bits in range(14, 36, 2))

GEN_AI_REQUEST_S = tuple(0.01 * 2**power for power in range(14))
"""OpenTelemetry's semantic conventions for generative AI, metrics of model servers."""
GEN_AI_TOKEN_S = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5)
GEN_AI_FIRST_S = TTFT_S
