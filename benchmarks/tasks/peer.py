"""The same model without a server: Transformers' tokenizer and model, batches of 64 by length.

`python -m benchmarks.tasks.peer SOURCE FOLDER TARGET THREADS` prints the seconds from one CSV to
the other; its start, its imports and the model's load are not counted.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path
from typing import Any

BATCH = 64


def main() -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    source, folder, target, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def run(texts: list[str]) -> list[tuple[str, float]]:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        made: list[tuple[str, float]] = [("", 0.0)] * len(texts)
        with torch.inference_mode():
            for start in range(0, len(order), BATCH):
                part = order[start : start + BATCH]
                inputs = tokenizer(
                    [texts[i] for i in part], padding=True, truncation=True, return_tensors="pt"
                )
                inputs.pop("token_type_ids", None)
                scores = model(**inputs).logits.float().softmax(-1)
                for i, row in zip(part, scores.tolist(), strict=True):
                    best = max(range(len(row)), key=row.__getitem__)
                    made[i] = (model.config.id2label[best], row[best])
        return made

    run(["warm"] * BATCH)
    started_s = time.perf_counter()
    with Path(source).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    found = run([row["text"] for row in rows])
    with Path(target).open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*rows[0], "label", "score"])
        writer.writerows([*row.values(), *pair] for row, pair in zip(rows, found, strict=True))
    print(time.perf_counter() - started_s)


if __name__ == "__main__":
    main()
