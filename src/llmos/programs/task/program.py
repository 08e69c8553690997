"""The program `task`: look at every input, ask for each that has no outcome, make the files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from llmos.abi.inference import GENERATE
from llmos.abi.program import Context, Interrupted
from llmos.abi.tasks import INPUT, TASK, TaskSpec
from llmos.errors import InvalidRequest
from llmos.programs.task.columns import Columns, look
from llmos.programs.task.items import Itemwise
from llmos.programs.task.outputs import write_outputs
from llmos.programs.task.prompting import Prompting
from llmos.programs.task.rounds import Rounds, Work
from llmos.programs.task.source import Row, read_rows


class TaskProgram:
    """Behind `abi.Program`. Its results are its checkpoint: what has one is never asked again."""

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """The outputs: `status` (completed, expired, cancelled), `counts`, `usage`, times, cost.

        Raises InvalidRequest for a spec, a prompt, a schema or a whole input that is none.
        """
        try:
            spec = msgspec.convert(ctx.inputs.get(TASK), TaskSpec)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"task: {error}", param="inputs.task") from None
        return _Run(ctx, spec).run()


class _Run:
    """One attempt."""

    def __init__(self, ctx: Context, spec: TaskSpec) -> None:
        self._ctx = ctx
        self._spec = spec
        self._path = ctx.files.get(INPUT)
        self._work: Work = Prompting(spec) if spec.work == GENERATE else Itemwise(spec, ctx.scratch)
        self._total = 0
        self._columns = Columns({}, [])
        self._rounds = Rounds(
            ctx,
            spec.policy,
            self._work,
            self._rows,
            variables=self._variables,
            tell=lambda: self._tell("running"),
        )

    def run(self) -> Mapping[str, Any]:
        """Every row to its outcome, then the files."""
        self._tell("validating")
        try:
            seen = look(self._rows(), self._spec, self._work.needs, self._rounds.give_way)
            self._columns, self._total = seen.columns, seen.num_rows
            self._rounds.run()
            self._tell("writing")
            return write_outputs(self._ctx, self._spec, self._columns, self._rows, self._total)
        except Interrupted:
            return {"status": "cancelled", "counts": self._counts()}

    def _rows(self) -> Iterator[Row]:
        return read_rows(self._spec, self._path)

    def _variables(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        return self._columns.variables(values)

    def _counts(self) -> dict[str, int]:
        num_done = self._rounds.num_done - self._rounds.num_failed
        failed = self._rounds.num_failed
        return {"total": self._total, "completed": num_done, "failed": failed}

    def _tell(self, phase: str) -> None:
        if not self._ctx.should_stop:
            self._ctx.progress(self._rounds.num_done, self._total, "rows", phase, self._counts())
