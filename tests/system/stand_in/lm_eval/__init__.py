"""As much of lm-evaluation-harness 0.4.13 as `llmos eval harness` uses, asked and read as it does.

Where the harness is installed, a test holds both to the same numbers.
"""
