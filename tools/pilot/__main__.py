"""`make pilot`: train tokenizer and model, write the bundled folder, measure, write the card.

`--only bundle` starts from a finished training in the work folder, `--only measure` from the
bundled folder as it is.
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
    """Evaluate the folder and write its card and figures."""
    train.fix_arithmetic()
    record = json.loads((folder / "recipe.json").read_text(encoding="utf-8"))
    measured = evaluate.evaluate(folder)
    bundle.write_json(folder / "evaluation.json", measured)
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
    parser.add_argument("--only", choices=("bundle", "measure"))
    arguments = parser.parse_args()
    if arguments.only is None:
        train.train(train.Recipe(steps=arguments.steps), arguments.start)
    if arguments.only != "measure":
        finish(paths.BUNDLE)
    measure(paths.BUNDLE)


if __name__ == "__main__":
    main()
