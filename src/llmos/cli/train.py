"""`train`: make a model by a recipe, from a file or from options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmos.cli.options import ClassName, Json

FIELDS = {
    "name": "name",
    "objective": "objective",
    "train_file": "data.train",
    "validation": "data.validation",
    "test": "data.test",
    "text": "data.text",
    "label": "data.label",
    "target": "data.target",
    "base": "base",
    "method": "method",
    "epochs": "training.epochs",
    "steps": "training.steps",
    "batch_size": "training.batch_size",
    "learning_rate": "training.learning_rate",
    "seed": "training.seed",
}
"""Of a recipe, by the options that set them."""


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="A recipe: YAML or JSON, see docs/train.md.")
    ] = None,
    *,
    name: Annotated[str | None, typer.Option(help="Of the model that is made.")] = None,
    objective: Annotated[
        str | None, typer.Option("--objective", "-O", help="classify, causal, masked, ...")
    ] = None,
    train_file: Annotated[
        str | None, typer.Option("--train", metavar="FILE", help="What to learn from.")
    ] = None,
    validation: Annotated[
        str | None, typer.Option("--validation", metavar="FILE", help="File or share to choose by.")
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", metavar="FILE", help="File or share to measure on.")
    ] = None,
    text: Annotated[str | None, typer.Option(help="Column of the text.")] = None,
    label: Annotated[str | None, typer.Option(help="Column of the label.")] = None,
    target: Annotated[str | None, typer.Option(help="Column of what a text becomes.")] = None,
    base: Annotated[
        str | None, typer.Option("--base", "-m", help="A model to go on from; none: from scratch.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="full, lora, adalora, prefix, ...")] = None,
    epochs: Annotated[float | None, typer.Option(help="Times through the data.")] = None,
    steps: Annotated[int | None, typer.Option(help="Updates, instead of epochs.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Examples at once.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="How large a step is.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same weights.")] = None,
    given: Annotated[
        list[str] | None,
        typer.Option("--set", "-s", metavar="FIELD=VALUE", help="Any field, as training.clip=0.5."),
    ] = None,
    service_class: Annotated[
        ClassName, typer.Option("--class", help="Service class.")
    ] = ClassName.BATCH,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Print the job's id and do not wait.")
    ] = False,
    help_recipe: Annotated[
        bool, typer.Option("--help-recipe", help="Explain every field of a recipe.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a model, from scratch or from another one."""
    fields = {FIELDS[option]: value for option, value in locals().items() if option in FIELDS}
    if help_recipe:
        from llmos.cli.output import emit
        from llmos.programs.train.help import as_text

        emit(as_text())
        return
    from llmos.cli.trainfile import assemble
    from llmos.cli.trainrun import run_training

    planned = assemble(recipe, fields, given or [])
    run_training(planned, service_class.value, detach=detach, as_json=json)
