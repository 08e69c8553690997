"""What a model in one type makes of a text, token by token, beside the same model in float32.

Teacher-forced: every token is read as the text has it, whatever the model would have said.

Legend: T scored tokens of a sequence, V vocabulary.
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.harness import Row, interval, round4
from benchmarks.quality.texts import Sequence, Text
from llmos.abi.driver import ReplicaSpec
from llmos.drivers.native.fused.binding import PAGE_TOKENS
from llmos.drivers.native.fused.engine import Engine, Piece
from llmos.drivers.native.fused.opening import open_fused
from llmos.drivers.native.fused.runner import FusedRunner

DTYPES = ("float32", "bfloat16", "float16", "int8", "int4")
CHUNK_TOKENS = 64
"""Read and predicted from in one forward."""

Logits = Callable[[Sequence], torch.Tensor]
"""Of a sequence: float32 TV, row t what token `scored[t]` is predicted by."""


def spec_of(folder: Path, dtype: str, **fields: Any) -> ReplicaSpec:
    """A replica of the fused engine, on one thread."""
    given: dict[str, Any] = {
        "context_length": 512,
        "num_slots": CHUNK_TOKENS,
        "num_threads": 1,
        "options": {"engine": "fused"},
    }
    return ReplicaSpec("quality", str(folder), "", "", dtype=dtype, **(given | fields))


def open_runner(folder: Path, dtype: str) -> FusedRunner:
    """With room for a chunk's logits. Its pages are ours as long as no request is in it."""
    return open_fused(spec_of(folder, dtype), guesses=False)


def fused(engine: Engine) -> Logits:
    """Through our kernels, in chunks."""

    def logits(sequence: Sequence) -> torch.Tensor:
        tokens = sequence.tokens
        table = array("i", range(-(-len(tokens) // PAGE_TOKENS)))
        read = []
        for start in range(0, len(tokens), CHUNK_TOKENS):
            part = tokens[start : start + CHUNK_TOKENS]
            read.append(engine.forward([Piece(table, start, part, len(part))]).clone())
        return torch.cat(read)[[at - 1 for at in sequence.scored]]

    return logits


def reference(folder: Path) -> Logits:
    """Through Transformers' own forward in float32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )

    def logits(sequence: Sequence) -> torch.Tensor:
        with torch.inference_mode():
            out = model(input_ids=torch.tensor([sequence.tokens]), use_cache=False).logits[0]
        return out[[at - 1 for at in sequence.scored]].float()  # type: ignore[no-any-return]

    return logits


@dataclass(frozen=True, slots=True)
class Score:
    """Of one sequence: sums over its scored tokens, the largest difference of all positions.

    `nll` in nats; `agree`: how often the likeliest token is the base's; `kl` from the base's
    distribution to this one; `off`: max |difference| of logits / max |logit|, at the worst
    position, from Transformers'.
    """

    count: int
    nll: float
    agree: int
    kl: float
    off: float


def score(
    sequence: Sequence, found_TV: torch.Tensor, base_TV: torch.Tensor, true_TV: torch.Tensor
) -> Score:
    """`base_TV`: ours in float32; `true_TV`: those of Transformers."""
    said_TV = found_TV.double().log_softmax(-1)
    base_said_TV = base_TV.double().log_softmax(-1)
    next_T = torch.tensor([sequence.tokens[at] for at in sequence.scored])
    off_T = (found_TV - true_TV).abs().amax(-1) / true_TV.abs().amax(-1)
    kl_TV = base_said_TV.exp() * (base_said_TV - said_TV)
    return Score(
        count=len(next_T),
        nll=-float(said_TV[torch.arange(len(next_T)), next_T].sum()),
        agree=int((found_TV.argmax(-1) == base_TV.argmax(-1)).sum()),
        kl=float(kl_TV.sum()),
        off=float(off_T.max()),
    )


def perplexity(scores: list[Score]) -> float:
    """Of all scored tokens together."""
    return math.exp(sum(s.nll for s in scores) / sum(s.count for s in scores))


def rows(name: str, dtype: str, scores: list[Score], base: list[Score]) -> list[Row]:
    """Perplexity beside float32 (interval over sequences), agreement, divergence, difference."""
    count = sum(s.count for s in scores)
    ours, theirs = round4(perplexity(scores)), round4(perplexity(base))
    figure = f"{name}, {dtype}"
    found = [Row(f"{figure}: perplexity", ours, "1")]
    if dtype != "float32":
        ratio = round4(perplexity(scores) / perplexity(base))
        bounds = _ratio_interval(scores, base)
        same, kl = sum(s.agree for s in scores) / count, sum(s.kl for s in scores) / count
        found = [
            Row(f"{figure}: perplexity", ours, "1", "float32", theirs, ratio, *bounds),
            Row(f"{figure}: same likeliest token", round4(same), "1"),
            Row(f"{figure}: KL from float32", round4(kl), "nats"),
        ]
    off = max(s.off for s in scores)
    return [*found, Row(f"{figure}: logits off Transformers' fp32", round4(off), "1")]


def _ratio_interval(scores: list[Score], base: list[Score]) -> tuple[float | None, float | None]:
    """None with a single sequence: there is nothing to draw again from."""
    if len(scores) < 2:
        return None, None

    def ratio(drawn: Collection[float]) -> float:
        chosen = [int(at) for at in drawn]
        return perplexity([scores[at] for at in chosen]) / perplexity([base[at] for at in chosen])

    low, high = interval(list(range(len(scores))), ratio)
    return round4(low), round4(high)


def of_text(text: Text, logits: dict[str, Logits], true: Logits) -> dict[str, list[Score]]:
    """Scores of every sequence by type."""
    found: dict[str, list[Score]] = {dtype: [] for dtype in logits}
    for sequence in text.sequences:
        true_TV, base_TV = true(sequence), logits["float32"](sequence)
        for dtype, of in logits.items():
            made_TV = base_TV if dtype == "float32" else of(sequence)
            found[dtype].append(score(sequence, made_TV, base_TV, true_TV))
    return found


def check(text: Text, scores: list[Score]) -> None:
    """Raises RuntimeError where float32 does not find what others found."""
    first = scores[0].nll / scores[0].count
    if text.nll is not None and abs(first - text.nll) > 1e-4:
        raise RuntimeError(f"{text.name}: {first:.6f} nats a token, others found {text.nll}")
