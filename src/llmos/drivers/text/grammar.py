"""What an answer has to be, as masks over a tokenizer's vocabulary. llguidance does the work.

A grammar's state follows from the tokens that were drawn: whoever goes on where another was reads
them again. Compiling and each mask are bounded by `limits`; what goes beyond is an error of the
request.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from llmos.abi.inference import Grammar
from llmos.drivers.text.limits import GRAMMAR
from llmos.errors import InvalidRequest, PluginError

KINDS = ("json_schema", "regex", "lark")

Allowed = npt.NDArray[np.int32]
"""For each token of the vocabulary, in its order, a bit: whether it may come. 32 to a word, the
first one lowest."""


class GrammarState:
    """How far one answer is in its grammar."""

    def __init__(self, matcher: Any, vocab_size: int) -> None:
        self._matcher = matcher
        self._words = np.zeros((vocab_size + 31) // 32, dtype=np.int32)
        self._address = self._words.ctypes.data

    @property
    def error(self) -> str | None:
        """Why it cannot go on, in one line."""
        if not self._matcher.is_error():
            return None
        return _first_line(self._matcher.get_error())

    @property
    def is_over(self) -> bool:
        """Nothing can follow but the end."""
        return bool(self._matcher.is_stopped()) and not self._matcher.is_error()

    def allowed(self) -> Allowed:
        """What may come next, until it is asked again. After an error, anything."""
        if self._matcher.is_error():
            self._words.fill(-1)
        else:
            self._matcher.unsafe_compute_mask_ptr(self._address, self._words.nbytes)
        return self._words

    def accept(self, token_id: int) -> bool:
        """Take a drawn token. False: it has no place there, which is an error from then on."""
        return bool(self._matcher.consume_token(token_id))

    def forced(self, most: int) -> list[int]:
        """Tokens of what must come next, as the tokenizer would write it: good guesses."""
        found: list[int] = self._matcher.compute_ff_tokens()
        return found[:most]

    def ahead(self, tokens: Sequence[int]) -> list[Allowed]:
        """`allowed` of the next token, and of those after each of `tokens`, as far as they fit."""
        found = [self.allowed().copy()]
        taken = 0
        for token in tokens:
            is_allowed = found[-1][token >> 5] >> (token & 31) & 1
            if self._matcher.is_error() or not is_allowed or not self.accept(token):
                break
            taken += 1
            if self.is_over:
                break
            found.append(self.allowed().copy())
        if taken:
            self._matcher.rollback(taken)
        return found


class Grammars:
    """Compiles grammars over one tokenizer; the last ones are kept."""

    def __init__(self, tokenizer_json: str, vocab_size: int, eos_ids: Iterable[int]) -> None:
        """Raises PluginError without llguidance, InvalidRequest for a tokenizer it cannot use."""
        self._engine = _engine()
        self.vocab_size = vocab_size
        self._kept: OrderedDict[Grammar, Any] = OrderedDict()
        ends = sorted(i for i in eos_ids if i < vocab_size)
        try:
            self._tokenizer = self._engine.LLTokenizer(
                tokenizer_json, n_vocab=vocab_size, eos_token=ends or None
            )
        except ValueError as error:
            raise InvalidRequest(
                f"this model's tokenizer takes no grammar: {_first_line(str(error))}"
            ) from error
        self._limits = self._engine.LLParserLimits(
            max_items_in_row=GRAMMAR.row_items,
            initial_lexer_fuel=GRAMMAR.compile_fuel,
            step_lexer_fuel=GRAMMAR.step_fuel,
            step_max_items=GRAMMAR.step_items,
            max_lexer_states=GRAMMAR.lexer_states,
            max_grammar_size=GRAMMAR.symbols,
            verbose_errors=False,
        )

    def start(self, grammar: Grammar) -> GrammarState:
        """The beginning of an answer. Raises InvalidRequest for what does not compile."""
        matcher = self._kept.get(grammar)
        if matcher is None:
            matcher = self._kept[grammar] = self._compile(grammar)
            if len(self._kept) > GRAMMAR.num_kept:
                self._kept.popitem(last=False)
        self._kept.move_to_end(grammar)
        return GrammarState(matcher.deep_copy(), self.vocab_size)

    def check(self, grammar: Grammar) -> None:
        """Whether it compiles, and an answer of it can begin. Raises InvalidRequest."""
        state = self.start(grammar)
        is_stuck = not state.allowed().any()
        if state.error or is_stuck:
            raise refused(grammar, state.error or "no answer can satisfy it")

    def _compile(self, grammar: Grammar) -> Any:
        matcher = self._engine.LLMatcher(
            self._tokenizer, self._written(grammar), log_level=0, limits=self._limits
        )
        if matcher.is_error():
            raise refused(grammar, matcher.get_error())
        return matcher

    def _written(self, grammar: Grammar) -> str:
        """In llguidance's own form."""
        make = self._engine.LLMatcher
        if len(grammar.text) > GRAMMAR.source_chars:
            raise refused(grammar, f"over {GRAMMAR.source_chars} characters")
        if grammar.kind == "json_schema":
            options = SCHEMA_OPTIONS | (LENIENT if grammar.lenient else {})
            try:
                written: str = make.grammar_from_json_schema(grammar.text, overrides=options)
            except (ValueError, RecursionError) as error:
                raise refused(grammar, str(error)) from error
            return written
        if grammar.kind == "regex":
            return str(make.grammar_from_regex(grammar.text))
        if grammar.kind == "lark":
            return str(make.grammar_from_lark(grammar.text))
        raise InvalidRequest(f"{grammar.kind[:40]!r} is no kind of grammar", param="grammar")


SCHEMA_OPTIONS: dict[str, Any] = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""As `json.dumps` writes: no model fills its answer with white space, and much of it is forced."""

LENIENT = {"lenient": True, "coerce_one_of": True}


class GrammarsOf:
    """Of a model's folder; made at the first request that brings a grammar."""

    def __init__(self, folder: Path, vocab_size: int, eos_ids: Iterable[int]) -> None:
        self._folder = folder
        self._vocab_size = vocab_size
        self._eos_ids = list(eos_ids)
        self._made: Grammars | None = None

    def get(self) -> Grammars:
        """Raises PluginError, InvalidRequest."""
        if self._made is None:
            try:
                text = (self._folder / "tokenizer.json").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise InvalidRequest("this model has no tokenizer that takes a grammar") from error
            self._made = Grammars(text, self._vocab_size, self._eos_ids)
        return self._made

    def start(self, grammar: Grammar | None, tokens: Sequence[int] = ()) -> GrammarState | None:
        """After `tokens` of an answer. Raises as `Grammars.start` does."""
        if grammar is None:
            return None
        state = self.get().start(grammar)
        for token in tokens:
            state.accept(token)
        return state


def in_lark(schema: Any, *, lenient: bool) -> str:
    """A schema as a rule's body."""
    options = SCHEMA_OPTIONS | (LENIENT if lenient else {})
    if isinstance(schema, dict):
        schema = {**schema, "x-guidance": options}
    return "%json " + json.dumps(schema, ensure_ascii=False)


def refused(grammar: Grammar, why: str) -> InvalidRequest:
    """The error of a grammar that cannot be used."""
    name = {"json_schema": "schema", "regex": "regular expression"}.get(grammar.kind, "grammar")
    return InvalidRequest(f"the {name} cannot be used: {_first_line(why)}", param="grammar")


_PLAIN = {"NoExtensionBias": "a reference in it leads only back to itself"}
"""What llguidance says in words of its own."""


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    lines = [_PLAIN.get(line, line) for line in lines]
    return (lines[0] if lines else "it is contradictory or too complex")[:300]


def _engine() -> Any:
    try:
        import llguidance
    except ImportError as error:
        raise PluginError(
            "structured output needs llguidance: pip install 'llmos[structured]'"
        ) from error
    return llguidance
