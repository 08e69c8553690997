"""The program `evaluate`: read the examples, ask every model, score, compare, say the verdict."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llmos.abi.evals import CORPUS, DATA, EVAL, EvalKind, EvalSpec, read_eval
from llmos.abi.program import RAW, Context, Interrupted, Yielded
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall import ShowModel
from llmos.errors import AnswerRejected, ErrorInfo, InvalidRequest, ModelNotFound, from_info
from llmos.programs.evaluate.asking import work_for
from llmos.programs.evaluate.corpus import Corpus
from llmos.programs.evaluate.examples import Example, read_examples
from llmos.programs.evaluate.html import write_html
from llmos.programs.evaluate.judging import Judging, verdict_on
from llmos.programs.evaluate.measure import Measured, measure
from llmos.programs.evaluate.search import QUERIES_AT_ONCE, Stored, nearest, store
from llmos.programs.evaluate.vectors import Vectors
from llmos.programs.evaluate.verdict import summarize
from llmos.programs.metrics.ranking import LEADING, Ranked
from llmos.programs.task import rows
from llmos.programs.task.outputs import hand_out
from llmos.programs.task.rounds import Rounds, Work
from llmos.programs.task.source import Row

MODEL, AGAINST, JUDGED = "model", "against", "judge"
EXAMPLES = "examples"
HTML, JSON = f"{RAW}html", f"{RAW}json"
"""The streams: answers of each, the examples with what was said of them, the report."""

MAX_WINDOW_BYTES = 4096
CONTEXT_RESERVE = 4
KEPT_CHARS = 2000

_encode = msgspec.json.Encoder().encode


class Outcomes(NamedTuple):
    """By row: results, and why there is none."""

    values: dict[int, Any]
    errors: dict[int, rows.Kept]


class EvaluateProgram:
    """Behind `abi.Program`. Answers that came are its checkpoint: none is asked for again."""

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """The report without its long parts, which are in the files. Raises InvalidRequest for a
        spec, data or a model that will not do, and what calls failed with."""
        spec = read_eval(ctx.inputs.get(EVAL))
        if DATA not in ctx.files:
            raise InvalidRequest("an evaluation needs a file `data`", param=f"files.{DATA}")
        try:
            return _Run(ctx, spec).run()
        except Interrupted:
            return {"status": "cancelled"}


class _Run:
    """One attempt."""

    def __init__(self, ctx: Context, spec: EvalSpec) -> None:
        self._ctx = ctx
        self._spec = spec
        self._path = Path(ctx.files[DATA])

    def run(self) -> Mapping[str, Any]:
        self._ctx.progress(0, 0, "examples", "reading")
        spec = self._spec
        version = self._version(spec.model)
        against = self._against()
        corpus = self._corpus()
        examples = read_examples(
            spec, self._path, _window_bytes(spec, version), has_corpus=corpus is not None
        )
        labels = spec.labels or list(
            dict.fromkeys(example.right for example in examples if spec.kind is EvalKind.CLASSIFY)
        )
        subjects = [(MODEL, version)] + ([(AGAINST, against)] if against else [])
        if corpus is not None:
            found = self._searched(examples, corpus, subjects)
        else:
            works = [work_for(spec, one, labels) for _, one in subjects]  # refused before any asks
            found = [
                self._ask(stream, work, [self._row(e) for e in _expanded(spec, examples)])
                for (stream, _), work in zip(subjects, works, strict=True)
            ]
        kept = self._answered(examples, found)
        each = [_answers(spec, examples, outcomes) for outcomes in found]
        chosen = [n for n, example in enumerate(examples) if example.number in kept]
        num_lost = len(examples) - len(chosen)
        examples = [examples[n] for n in chosen]
        each = [[answers[n] for n in chosen] for answers in each]
        if spec.kind is EvalKind.JUDGE:
            each = [self._judge(examples, each)]
        self._ctx.progress(len(examples), len(examples), "examples", "scoring")
        measured = measure(spec, examples, each)
        return self._report(examples, measured, found, num_lost, (version, against))

    def _version(self, ref: str) -> ModelVersion:
        version: ModelVersion = self._ctx.ask(ShowModel(ref)).model
        return version

    def _against(self) -> ModelVersion | None:
        """None, too, where it may be missing and is."""
        ref = self._spec.against
        try:
            return self._version(ref.removesuffix("?")) if ref else None
        except ModelNotFound:
            if ref.endswith("?"):
                return None
            raise

    def _corpus(self) -> Corpus | None:
        """None where each example has documents of its own."""
        path = self._ctx.files.get(CORPUS)
        if path is None:
            return None
        if self._spec.kind is not EvalKind.RETRIEVE:
            text = f"{self._spec.kind} searches no corpus: kind retrieve does"
            raise InvalidRequest(text, param=f"files.{CORPUS}")
        return Corpus(self._spec, Path(path))

    # asking

    @staticmethod
    def _row(example: Example) -> Row:
        return Row(example.number, example.asked)

    def _ask(self, stream: str, work: Work, wanted: Sequence[Row]) -> Outcomes:
        self._asked(stream, work, lambda: iter(wanted), len(wanted))
        return Outcomes({kept.row: kept.value for kept in self._kept(stream)}, self._errors(stream))

    def _asked(
        self, stream: str, work: Work, source: Callable[[], Iterator[Row]], total: int
    ) -> None:
        """Every row has its outcome, in the stream or beside it."""

        def tell() -> None:
            counts = {"failed": rounds.num_failed}
            self._ctx.progress(rounds.num_done, total, "examples", f"asking {stream}", counts)

        rounds = Rounds(
            self._ctx,
            self._spec.policy,
            work,
            source,
            variables=lambda values: values,
            tell=tell,
            streams=(stream, f"{stream}_errors"),
        )
        rounds.run()

    def _kept(self, stream: str) -> Iterator[rows.Kept]:
        return rows.read_kept(self._ctx.gather(stream))

    def _errors(self, stream: str) -> dict[int, rows.Kept]:
        return {kept.row: kept for kept in self._kept(f"{stream}_errors")}

    # searching

    def _searched(
        self,
        examples: Sequence[Example],
        corpus: Corpus,
        subjects: Sequence[tuple[str, ModelVersion]],
    ) -> list[Outcomes]:
        """What was found of a corpus."""
        spec = self._spec
        relevant = {example.number: corpus.relevant(example) for example in examples}
        asked = [Row(example.number, {"text": example.asked["query"]}) for example in examples]
        works = [
            [
                Vectors(of, spec.params, prefix)
                for prefix in (spec.document_prefix, spec.query_prefix)
            ]
            for _, of in subjects
        ]  # refused before any asks
        made = []
        for (stream, _), (by_document, by_query) in zip(subjects, works, strict=True):
            documents = self._documents(f"{stream}_corpus", by_document, corpus)
            self._asked(stream, by_query, lambda: iter(asked), len(asked))
            queries = self._stored(stream)
            found: dict[int, Ranked] = {}
            for number, places in nearest(queries, documents):
                self._tell_searched(len(found), len(examples))
                found[number] = _ranked(places.tolist(), corpus.names, relevant[number])
            made.append(Outcomes(found, self._errors(stream)))
        return made

    def _documents(self, stream: str, work: Work, corpus: Corpus) -> Stored:
        """Of all: one without a vector is nobody's to leave out."""
        self._asked(stream, work, corpus.rows, len(corpus))
        for place, kept in self._errors(stream).items():
            assert kept.error is not None
            told = f"document {corpus.names[place][:64]!r}: {kept.error.message}"
            raise from_info(ErrorInfo(kept.error.code, told))
        return self._stored(stream)

    def _stored(self, stream: str) -> Stored:
        found = ((kept.row, kept.value) for kept in self._kept(stream))
        return store(found, Path(self._ctx.scratch) / f"{stream}.float32")

    def _tell_searched(self, done: int, total: int) -> None:
        """Vectors are kept: it may give way at any query, and search again."""
        if self._ctx.should_stop:
            raise Interrupted("stopped")
        if self._ctx.should_yield:
            raise Yielded
        if done % QUERIES_AT_ONCE == 0:
            self._ctx.progress(done, total, "examples", "searching")

    def _answered(self, examples: Sequence[Example], found: Sequence[Outcomes]) -> set[int]:
        """Numbers of examples that count: those whose calls were made, of every model. An answer
        that is none counts as wrong. Raises the first failure where too many calls failed."""
        lost: dict[int, rows.Kept] = {}
        for outcomes in found:
            for row, kept in outcomes.errors.items():
                assert kept.error is not None
                if kept.error.code != AnswerRejected.code:
                    lost.setdefault(_number_of(self._spec, examples, row), kept)
        if len(lost) > self._spec.max_failed * len(examples):
            number, kept = min(lost.items())
            assert kept.error is not None
            told = f"{len(lost)} of {len(examples)} calls failed; example {number + 1}: "
            raise from_info(ErrorInfo(kept.error.code, told + kept.error.message))
        return {example.number for example in examples} - lost.keys()

    def _judge(self, examples: Sequence[Example], each: Sequence[Sequence[Any]]) -> list[Any]:
        """The model's answers, each with what the judge says of it."""
        judge = self._spec.judge
        assert judge is not None
        orders = (True, False) if judge.swap else (True,)
        wanted = []
        for place, example in enumerate(examples):
            mine = str(each[0][place] or "")
            other = str(each[1][place] or "") if len(each) > 1 else str(example.right)
            for is_first in orders:
                a, b = (mine, other) if is_first else (other, mine)
                values = {"question": example.asked["text"], "a": a, "b": b}
                wanted.append(Row(example.number * 2 + (not is_first), values))
        found = self._ask(JUDGED, Judging(judge, self._version(judge.model)), wanted)
        made = []
        for place, example in enumerate(examples):
            verdicts = []
            for is_first in orders:
                said = found.values.get(example.number * 2 + (not is_first))
                verdicts.append("tie" if said is None else verdict_on(said["verdict"], is_first))
            made.append((str(each[0][place] or ""), verdicts))
        return made

    # what it came to

    def _report(
        self,
        examples: Sequence[Example],
        measured: Sequence[Measured],
        found: Sequence[Outcomes],
        num_lost: int,
        versions: tuple[ModelVersion, ModelVersion | None],
    ) -> Mapping[str, Any]:
        spec, of, (version, against) = self._spec, measured[0], versions
        errors = [kept.error for kept in found[0].errors.values() if kept.error is not None]
        rejected = sum(error.code == AnswerRejected.code for error in errors)
        short = {
            "status": "completed",
            "title": spec.title,
            "kind": spec.kind.value,
            "model": version.ref,
            "against": against.ref if against else "",
            "judge": spec.judge.model if spec.judge else "",
            "examples": len(examples),
            "rejected": rejected,
            "failed": num_lost,
            "confidence": spec.confidence,
            "resamples": spec.resamples,
            "data": _digest(self._path),
            **self._searched_in(),
            "notes": of.notes,
            **summarize(spec, examples, measured),
        }
        long = {
            "classes": of.classes,
            "labels": of.labels,
            "confusion": of.confusion,
            "curves": of.curves,
        }
        self._keep(examples, measured, {**short, **long})
        self._ctx.emit("evaluation", {"score": short["score"], "scores": short["scores"]})
        if gate := short.get("gate"):
            self._ctx.emit("gate", gate)
        return short

    def _searched_in(self) -> dict[str, Any]:
        path = self._ctx.files.get(CORPUS)
        return {} if path is None else {"corpus": _digest(Path(path))}

    def _keep(
        self, examples: Sequence[Example], measured: Sequence[Measured], report: dict[str, Any]
    ) -> None:
        lines = list(_lines(examples, measured))
        for place, line in enumerate(lines):
            self._ctx.result(EXAMPLES, str(place), place, _encode(line))
        folder = Path(self._ctx.scratch)
        page, data = folder / "report.html", folder / "report.json"
        write_html(page, report, lines)
        data.write_bytes(msgspec.json.format(_encode(report), indent=2))
        hand_out(self._ctx, HTML, page)
        hand_out(self._ctx, JSON, data)


def _ranked(places: list[int], names: Sequence[str], relevant: Mapping[int, float]) -> Ranked:
    """A thousand places come to the few that count."""
    gains = {rank: relevant[place] for rank, place in enumerate(places) if place in relevant}
    return Ranked([names[place] for place in places[:LEADING]], gains)


def _window_bytes(spec: EvalSpec, version: ModelVersion) -> int:
    """A token has a byte at least, so so many bytes fit any context."""
    fits = max(16, version.context_length - CONTEXT_RESERVE)
    return spec.window_bytes or min(MAX_WINDOW_BYTES, fits)


def _is_by_choice(spec: EvalSpec) -> bool:
    return spec.kind is EvalKind.CHOICE and spec.by == "logprobs"


def _expanded(spec: EvalSpec, examples: Sequence[Example]) -> Iterator[Example]:
    """One for each call: where choices are scored, one for each choice."""
    if not _is_by_choice(spec):
        yield from examples
        return
    row = 0
    for example in examples:
        for choice in example.asked["choices"]:
            yield Example(row, {**example.asked, "choice": choice}, None, {})
            row += 1


def _number_of(spec: EvalSpec, examples: Sequence[Example], row: int) -> int:
    """The example that a call's row is of."""
    if not _is_by_choice(spec):
        return row
    for example in examples:
        row -= len(example.asked["choices"])
        if row < 0:
            return example.number
    raise AssertionError("no such row")


def _answers(spec: EvalSpec, examples: Sequence[Example], found: Outcomes) -> list[Any]:
    """One for each example; None: there is none that counts."""
    if not _is_by_choice(spec):
        return [found.values.get(example.number) for example in examples]
    made, row = [], 0
    for example in examples:
        count = len(example.asked["choices"])
        made.append([found.values.get(n, []) for n in range(row, row + count)])
        row += count
    return made


def _lines(examples: Sequence[Example], measured: Sequence[Measured]) -> Iterator[dict[str, Any]]:
    """An example as it is kept: what was asked, what is right, what each model said."""
    for place, example in enumerate(examples):
        own = dict(measured[0].own[place])
        line = {
            **example.slices,  # columns of people's own: whatever their names, ours are ours
            "example": example.number,
            "asked": _cut(example.asked),
            "expected": _plain(example.right),
            "said": own.pop("said", None),
            "right_was_said": own.pop("right", own.get("exact")),
            **own,
        }
        if len(measured) > 1:
            line["other_said"] = measured[1].own[place].get("said")
        yield line


def _cut(asked: Mapping[str, Any]) -> str:
    text = next((str(asked[name]) for name in ("question", "query", "text") if name in asked), "")
    return text if len(text) <= KEPT_CHARS else text[:KEPT_CHARS] + "…"


def _plain(right: Any) -> Any:
    return sorted(map(list, right)) if isinstance(right, set) else right


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
