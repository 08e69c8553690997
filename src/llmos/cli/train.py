"""`train`: make a model by a recipe, from a file or from options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmos.cli.options import ClassName, Json

Source = typer.Option(metavar="FILE", help="CSV, JSONL, Parquet, text, or a folder.")


def _explain(wanted: bool) -> None:
    if wanted:
        from llmos.cli.output import emit
        from llmos.programs.train.help import as_text

        emit(as_text())
        raise typer.Exit


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
        bool,
        typer.Option(
            "--help-recipe", callback=_explain, is_eager=True, help="Explain every field."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Train a model: its loss and its measures as they come, then a version to serve."""
    from llmos.cli.trainfile import assemble
    from llmos.cli.trainrun import run_training

    fields = {
        "name": name,
        "objective": objective,
        "data.train": train_file,
        "data.validation": validation,
        "data.test": test,
        "data.text": text,
        "data.label": label,
        "data.target": target,
        "base": base,
        "method": method,
        "training.epochs": epochs,
        "training.steps": steps,
        "training.batch_size": batch_size,
        "training.learning_rate": learning_rate,
        "training.seed": seed,
    }
    planned = assemble(recipe, fields, given or [])
    run_training(planned, service_class.value, detach=detach, as_json=json)
