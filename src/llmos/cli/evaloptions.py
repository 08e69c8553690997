"""What `eval run` may be told on its command line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

File = Annotated[
    Path | None, typer.Argument(help="An evaluation's file: YAML, see docs/evaluate.md.")
]
Kind = Annotated[
    str | None,
    typer.Option(
        help="classify, ner, qa, generate, summarize, translate, perplexity, choice, retrieve, "
        "judge."
    ),
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="Who is measured.")]
Against = Annotated[
    str | None, typer.Option(help="Another model, asked the same; REF? if it may be missing.")
]
Data = Annotated[str | None, typer.Option(help="The file with the examples.")]
Corpus = Annotated[
    str | None, typer.Option(help="Of retrieve: the file with the documents to search.")
]
QueryPrefix = Annotated[
    str | None, typer.Option(help="Of retrieve, by vectors: what stands before every query.")
]
DocumentPrefix = Annotated[
    str | None, typer.Option(help="Of retrieve, by vectors: what stands before every document.")
]
Format = Annotated[
    str | None,
    typer.Option("--format", help="csv, tsv, jsonl, json, parquet, conll, squad, lines, text."),
]
Columns = Annotated[
    list[str] | None, typer.Option("--map", help="NAME=COLUMN of the data. Repeatable.")
]
Labels = Annotated[list[str] | None, typer.Option("--label", help="One of all labels. Repeatable.")]
Rename = Annotated[
    list[str] | None, typer.Option(help="MODEL'S=DATA'S name of a label. Repeatable.")
]
Slices = Annotated[
    list[str] | None, typer.Option("--slice", help="A column to part scores by. Repeatable.")
]
Limit = Annotated[int | None, typer.Option(min=1, help="So many examples, drawn.")]
Seed = Annotated[int | None, typer.Option(help="Of all that is drawn.")]
Language = Annotated[str | None, typer.Option(help="Of the texts: zh, de ...")]
Judge = Annotated[str | None, typer.Option(help="Of judge: the model that judges.")]
By = Annotated[str | None, typer.Option(help="Of choice: letter or logprobs.")]
AtLeast = Annotated[
    list[str] | None, typer.Option("--min", help="A gate: SCORE=NUMBER. Repeatable.")
]
AtMost = Annotated[
    list[str] | None, typer.Option("--max", help="A gate: SCORE=NUMBER. Repeatable.")
]
Worse = Annotated[
    list[str] | None,
    typer.Option(help="A gate: SCORE=NUMBER, by which --against may be better. Repeatable."),
]
Out = Annotated[
    list[Path] | None,
    typer.Option("--out", "-o", help="A report: .html, .json, or .jsonl (by example). Repeatable."),
]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Do not wait for it.")]
