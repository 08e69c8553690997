"""`make pilot`: train tokenizer and model, write the bundled folder, measure, write the card.

`--only bundle` starts from a finished training in the work folder, `--only measure` from the
bundled folder as it is, `--only card` from its figures.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from tokenizers import Tokenizer

from tools.pilot import bundle, card, evaluate, paths, tokenizer, train


def finish(folder: Path) -> None:
    """Turn the training that lies in the work folder into the bundled folder."""
    spent = json.loads((paths.WORK / "training.json").read_text(encoding="utf-8"))
    training = train.Training(train.Recipe(**spent["recipe"]))
    training.restore(paths.WORK / "final.pt")
    text = Tokenizer.from_file(str(paths.WORK / "tokenizer.json"))
    bundle.write(training, text, folder)
    bundle.write_json(folder / "recipe.json", bundle.record(spent, folder))


def measure(folder: Path) -> None:
    """Evaluate the folder, write the figures and the card."""
    train.fix_arithmetic()
    bundle.write_json(folder / "evaluation.json", evaluate.evaluate(folder))
    write_card(folder)


def write_card(folder: Path) -> None:
    """Write the card from the record and the figures that lie in the folder."""
    record = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    measured = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    written = card.write(record, measured, tokenizer.VOCAB_SIZE, tokenizer.CONTEXT_LENGTH)
    (folder / "README.md").write_text(written, encoding="utf-8")
    size = bundle.size_bytes(folder)
    if size > paths.MAX_BUNDLE_BYTES:
        raise SystemExit(f"{folder} has {size} bytes, more than {paths.MAX_BUNDLE_BYTES}")
    print(f"{folder}: {size} bytes")


def main() -> None:
    """Do all of it, or the part that is asked for."""
    parser = argparse.ArgumentParser(prog="make pilot", description=__doc__)
    parser.add_argument("--steps", type=int, default=train.Recipe().steps)
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--only", choices=("bundle", "measure", "card"))
    arguments = parser.parse_args()
    if arguments.only is None:
        train.train(train.Recipe(steps=arguments.steps), arguments.start)
    if arguments.only in (None, "bundle"):
        finish(paths.BUNDLE)
    if arguments.only == "card":
        write_card(paths.BUNDLE)
    else:
        measure(paths.BUNDLE)


if __name__ == "__main__":
    main()
