"""Options of `llmos task`, which its one-liners share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from llmos.cli.duration import parse_duration
from llmos.cli.options import ClassName

_Texts = list[str] | None

Model = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", help="auto: the server chooses one, and says why."
    ),
]
Source = Annotated[
    str | None,
    typer.Option(
        "--input",
        "-i",
        metavar="PATH",
        help="A file, a folder, or - for stdin. Its suffix is its format.",
    ),
]
Csv = Annotated[str | None, typer.Option(metavar="FILE", help="A file of CSV.")]
Jsonl = Annotated[str | None, typer.Option(metavar="FILE", help="A file of JSON lines.")]
Parquet = Annotated[str | None, typer.Option(metavar="FILE", help="A Parquet file.")]
Text = Annotated[_Texts, typer.Option(metavar="TEXT", help="An input itself; repeatable.")]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="csv, tsv, jsonl, json, parquet, lines or document."
    ),
]
Column = Annotated[str | None, typer.Option(metavar="NAME", help="The column with the text.")]
Columns = Annotated[
    _Texts, typer.Option("--map", metavar="NAME=COLUMN", help="For what else is read; repeatable.")
]
Keep = Annotated[
    _Texts, typer.Option(metavar="NAME", help="Only these columns come back; repeatable.")
]
Out = Annotated[
    list[Path] | None,
    typer.Option(
        "--out",
        "-o",
        metavar="FILE",
        help="Where results go: .jsonl .json .csv .parquet .md .html .txt. Repeatable.",
    ),
]
Prompt = Annotated[
    str | None,
    typer.Option(metavar="TEXT", help="A Jinja template over the columns, or @FILE with it."),
]
System = Annotated[str, typer.Option(metavar="TEXT", help="The system message.")]
Labels = Annotated[
    _Texts, typer.Option("--label", metavar="LABEL", help="One of those there are; repeatable.")
]
To = Annotated[str, typer.Option(metavar="LANGUAGE", help="The language to translate into.")]
Schema = Annotated[
    str | None, typer.Option(metavar="JSON", help="JSON schema of an answer, or @FILE with it.")
]
Language = Annotated[
    str | None,
    typer.Option(metavar="CODE", help="Of the inputs (en, zh ...), for the choice of a model."),
]
Temperature = Annotated[float | None, typer.Option(metavar="NUMBER", help="0 is greedy.")]
MaxTokens = Annotated[int | None, typer.Option(metavar="N", help="Of one answer.")]
Class = Annotated[ClassName, typer.Option("--class", help="Service class.")]
Deadline = Annotated[
    float | None,
    typer.Option(parser=parse_duration, metavar="TIME", help="Of the task: 90s, 10m, 2h."),
]
Timeout = Annotated[
    float | None, typer.Option(parser=parse_duration, metavar="TIME", help="Of one input.")
]
Retries = Annotated[
    int, typer.Option(min=0, metavar="N", help="Of one input, after failures that may pass.")
]
BudgetTokens = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Of all inputs together.")
]
BudgetCost = Annotated[
    float | None, typer.Option(metavar="DOLLARS", help="Of all inputs together, in US dollars.")
]
Name = Annotated[str, typer.Option(metavar="NAME", help="A name for people; the report's title.")]
Detach = Annotated[bool, typer.Option("--detach", "-d", help="Print its id and leave it to run.")]
