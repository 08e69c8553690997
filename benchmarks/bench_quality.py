"""What fewer bits cost and bring: perplexity, agreement and speed of every type of weights.

Trained small models (the bundled one, and stories260k where the real data is), every token read as
the text has it, through the fused engine's kernels; logits beside those of Transformers in float32.
Decode speed of the same models, and of one of 60 million random parameters, where weights are what
a step reads: a type that is slower than the wider one must be warned of.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks import harness, models
from benchmarks.engine import plots
from benchmarks.quality import scores, speed, texts
from tools.pilot import paths

BITS = {4: "int4", 8: "int8", 16: "bfloat16", 32: "float32"}

Trained = tuple[str, Path, list[texts.Text]]


def trained(full: bool) -> Iterator[Trained]:
    """Name, folder and texts of each model."""
    stories = texts.data() / "models" / "stories260k"
    if stories.is_dir():
        yield "stories260k", stories, list(texts.of_stories(stories, 64 if full else 16))
    yield "pilot", paths.BUNDLE, list(texts.of_pilot(1000 if full else 250))


def quality(result: harness.Result, model: Trained, series: plots.Series) -> None:
    """Rows of one model on all its texts."""
    name, folder, of = model
    lines = series.setdefault(f"{name}: perplexity, x float32's, by bits", {})
    runners = {dtype: scores.open_runner(folder, dtype) for dtype in scores.DTYPES}
    logits = {dtype: scores.fused(runner.engine) for dtype, runner in runners.items()}
    true = scores.reference(folder)
    for text in of:
        found = scores.of_text(text, logits, true)
        scores.check(text, found["float32"])
        for dtype in scores.DTYPES:
            for row in scores.rows(f"{name}, {text.name}", dtype, found[dtype], found["float32"]):
                result.add(row)
        base = scores.perplexity(found["float32"])
        lines[text.name] = [
            (bits, scores.perplexity(found[dtype]) / base) for bits, dtype in BITS.items()
        ]
    for runner in runners.values():
        runner.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="four times the text")
    parser.add_argument("--repetitions", type=int, default=9)
    options = parser.parse_args()
    result = harness.Result("quality", harness.command("quality"))
    series: plots.Series = {}
    found = list(trained(options.full))
    if len(found) == 1:
        result.notes.append(f"stories260k is not in {texts.data().name}: not measured.")
    try:
        for model in found:
            quality(result, model, series)
        for name, folder in [*(model[:2] for model in found), ("60m", models.folder("60m"))]:
            speed.rows(name, folder, result, options.repetitions, series)
    finally:  # what was measured before one fails is kept
        title = f"quality, {result.date[:10]}, {result.commit}"
        path = result.write(draw=lambda _, picture: plots.draw(series, title, picture))
        print(path.relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
