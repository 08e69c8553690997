"""Labels by folder, for what is no text."""

from __future__ import annotations

import json
from typing import Any

from llmos.errors import InvalidRequest
from llmos.programs.train.examples import Examples, by_length
from llmos.programs.train.recipe import TRAIN
from llmos.programs.train.rows import labels_of
from llmos.programs.train.scores import classification
from llmos.programs.train.work import Setting, losses


class Labelled:
    """Raises InvalidRequest for one label only, or one that only another split has."""

    def __init__(self, setting: Setting) -> None:
        column = setting.recipe.data.label
        found = {split: labels_of(rows, column, split) for split, rows in setting.rows.items()}
        kept = setting.kept.get("labels")
        self.labels: list[str] = sorted(set(found[TRAIN])) if kept is None else json.loads(kept)
        setting.kept["labels"] = json.dumps(self.labels)
        if len(self.labels) < 2:
            raise InvalidRequest(
                f"train: every example has the label {self.labels[0]!r}",
                param="recipe.data.label",
            )
        known = {name: number for number, name in enumerate(self.labels)}
        for split, names in found.items():
            if new := sorted(set(names) - set(known)):
                raise InvalidRequest(
                    f"{split}: no example to learn from has the label {new[0][:64]!r}",
                    param=f"files.{split}",
                )
        self.numbers = {split: [known[n] for n in names] for split, names in found.items()}

    def fields(self) -> dict[str, Any]:
        """Of a configuration."""
        return {
            "num_labels": len(self.labels),
            "id2label": dict(enumerate(self.labels)),
            "label2id": {name: number for number, name in enumerate(self.labels)},
        }

    def score(self, model: Any, examples: Examples) -> dict[str, float]:
        """As of texts."""
        truth, guess, total = [], [], 0.0
        for numbers, batch, outputs, loss in losses(model, examples, by_length(examples, 32)):
            truth += batch["labels"].tolist()
            guess += outputs.logits.argmax(-1).tolist()
            total += loss * len(numbers)
        return {"loss": total / len(examples), **classification(truth, guess, len(self.labels))}
