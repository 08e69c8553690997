"""The cards of the small models, from their records and figures."""

from __future__ import annotations

from pathlib import Path

from tools.small import bundle

_HEAD = """---
license: apache-2.0
language: [en, zh]
pipeline_tag: {tag}
---

# {title}

{about}

{figures}

{caveat}

{num_parameters:,} parameters in bfloat16; BERT's architecture with {layers} of {hidden} units, a
tokenizer of lists of words (Unigram). Trained from nothing in {cpu_s} s of one processor core, on
texts made up by a program from lists of words written by hand; no text of others is in it.
`make small` does it again, and measures it; `recipe.json` says with what.
"""


def write_sentiment(folder: Path) -> None:
    """Of the classifier."""
    figures = ["| real texts | number | accuracy | mean recall | larger class | sum of words |"]
    figures.append("|---|---|---|---|---|---|")
    for name, one in bundle.read_json(folder / "evaluation.json").items():
        figures.append(
            f"| {name} | {one['num_texts']:,} | {one['accuracy']:.1%} | "
            f"{one['balanced_accuracy']:.1%} | {one['larger_class']:.1%} | "
            f"{one['sum_of_words']:.1%} |"
        )
    _write(
        folder,
        tag="text-classification",
        title="sentiment",
        about="Says whether an English or Chinese text is `positive` or `negative`.",
        figures="\n".join(figures),
        caveat=(
            "It knows words and simple ways to turn them round, no irony and no world. The last\n"
            "two columns are what a constant answer would have, and the sum of the lists' weights."
        ),
    )


def write_embedding(folder: Path) -> None:
    """Of the model of vectors."""
    figures = ["| real texts | number | classes | nearest is of the same class | TF-IDF | chance |"]
    figures.append("|---|---|---|---|---|---|")
    for name, one in bundle.read_json(folder / "evaluation.json").items():
        figures.append(
            f"| {name} | {one['num_texts']:,} | {one['num_classes']} | "
            f"{one['nearest_is_same']:.1%} | {one['tf_idf']:.1%} | {one['chance']:.1%} |"
        )
    _write(
        folder,
        tag="sentence-similarity",
        title="embedding",
        about="Turns an English or Chinese text into a vector; what means the same is near.",
        figures="\n".join(figures),
        caveat=(
            "Of translations, there is one class for each text. It knows some four hundred\n"
            "concepts of everyday life, banking, travel and shopping, which the lists were\n"
            "written for; of anything else it sees little but the letters."
        ),
    )


def _write(folder: Path, **fields: str) -> None:
    record = bundle.read_json(folder / "recipe.json")
    layers = record["recipe"]["num_hidden_layers"]
    text = _HEAD.format(
        **fields,
        num_parameters=record["num_parameters"],
        layers="1 layer" if layers == 1 else f"{layers} layers",
        hidden=record["recipe"]["hidden_size"],
        cpu_s=record["cpu_s"],
    )
    (folder / "README.md").write_text(text, encoding="utf-8")
