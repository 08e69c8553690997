"""What is measured while a model learns; `llmos eval` measures more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def classification(truth: Sequence[int], guess: Sequence[int], num_labels: int) -> dict[str, float]:
    """Accuracy, and F1 as the mean over labels that occur in either."""
    counts = np.zeros((num_labels, num_labels), dtype=np.int64)
    np.add.at(counts, (np.asarray(truth), np.asarray(guess)), 1)
    right = np.diag(counts)
    both = counts.sum(0) + counts.sum(1)
    occurs = both > 0
    f1 = 2 * right[occurs] / both[occurs]
    return {"accuracy": float(right.sum() / counts.sum()), "f1_macro": float(f1.mean())}
