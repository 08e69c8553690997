"""The end of a task: its outcomes written as what was asked for, and handed out in pieces.

What is written depends on the outcomes alone, never on the clock: an attempt that dies here leaves
pieces, and the next one, which writes the same, adds those that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from llmos.abi.program import RAW, Context, Interrupted, Yielded
from llmos.abi.tasks import OutputFormat, TaskSpec
from llmos.programs.task import rows
from llmos.programs.task.columns import Columns
from llmos.programs.task.html import write_html
from llmos.programs.task.parquet import write_parquet
from llmos.programs.task.records import Layout, Record, Records, Tally, is_expired, records
from llmos.programs.task.source import Row
from llmos.programs.task.tables import (
    write_csv,
    write_json,
    write_jsonl,
    write_markdown,
    write_text,
)

PIECE_BYTES = 1 << 20
LOOK_ROWS = 1024

STREAMS: dict[OutputFormat, str] = {made: f"{RAW}{made.value}" for made in OutputFormat}
"""Of results, each of which becomes a file."""


def write_outputs(
    ctx: Context,
    spec: TaskSpec,
    columns: Columns,
    source: Callable[[], Iterator[Row]],
    total: int,
) -> dict[str, Any]:
    """The job's outputs. Raises Yielded, Interrupted when it is to leave."""
    done, failed = ctx.gather(rows.DONE), ctx.gather(rows.FAILED)
    every: Records = partial(_every, ctx, partial(records, source, done, failed))
    tally = Tally()
    for record in every():
        if record.kept is not None:
            tally.add(record.kept)
    layout = Layout(spec, columns)
    for number, wanted in enumerate(dict.fromkeys(spec.outputs)):
        ctx.progress(total, total, "rows", f"writing {wanted}", {"files": number})
        path = Path(ctx.scratch) / f"output.{wanted}"
        _WRITERS[wanted](path, spec, layout, every, tally)
        hand_out(ctx, STREAMS[wanted], path)
    status = "expired" if is_expired(tally, spec) else "completed"
    return {"status": status, **tally.to_dict(), "chosen": spec.reason}


def _every(ctx: Context, made: Records) -> Iterator[Record]:
    """With a look now and then whether to leave."""
    for record in made():
        if record.row.number % LOOK_ROWS == 0:
            if ctx.should_stop:
                raise Interrupted("stopped")
            if ctx.should_yield:
                raise Yielded
        yield record


def hand_out(ctx: Context, stream: str, path: Path) -> None:
    """A file in pieces of a stream; the file is gone then."""
    with path.open("rb") as file:
        number = 0
        while piece := file.read(PIECE_BYTES):
            ctx.result(stream, str(number), number, piece)
            number += 1
    path.unlink()


Writer = Callable[[Path, TaskSpec, Layout, Records, Tally], None]

_WRITERS: Mapping[OutputFormat, Writer] = {
    OutputFormat.JSONL: write_jsonl,
    OutputFormat.JSON: write_json,
    OutputFormat.CSV: write_csv,
    OutputFormat.PARQUET: write_parquet,
    OutputFormat.MARKDOWN: write_markdown,
    OutputFormat.HTML: write_html,
    OutputFormat.TEXT: write_text,
}
