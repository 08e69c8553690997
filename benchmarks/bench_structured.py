"""What structured output costs, and whether it is what was asked for.

Answers over random schemas of bounded size, in batches, by a model of random weights that follows
nothing but its grammar: each must be valid JSON of its schema where it ended by itself. The peer is
the same model, prompts, seeds and numbers of tokens without a grammar, in a run beside each batch.
Once with guesses, as the engine comes, where what a grammar demands is guessed; once without, which
is the price of the masks alone. Compiling is in neither: it has a row of its own. The clock is the
process's CPU time, on one thread, so that other work on the machine changes little.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from benchmarks import models
from benchmarks.harness import Result, command, paired, single
from benchmarks.schemas import is_valid, random_schema
from llmos.abi.driver import ReplicaSpec
from llmos.abi.events import Finished, FinishReason, Tokens
from llmos.abi.inference import Grammar, Sampling, WorkItem
from llmos.drivers.native.driver import NativeDriver

ROWS = 8
MAX_TOKENS = 256
PROMPT = 48


@dataclass
class Batch:
    """One batch of answers: seconds of compiling and of the rest, and what came of each."""

    compile_s: float = 0.0
    run_s: float = 0.0
    texts: dict[str, str] = field(default_factory=dict)
    num_tokens: dict[str, int] = field(default_factory=dict)
    stopped: set[str] = field(default_factory=set)

    @property
    def token_ms(self) -> float:
        """Of each token."""
        return 1000 * self.run_s / sum(self.num_tokens.values())


def load(shape: str, guesses: bool) -> NativeDriver:
    """On one thread, with as many rows as a batch has."""
    driver = NativeDriver()
    spec = ReplicaSpec(
        model_id="bench",
        folder=str(models.folder(shape)),
        scratch="",
        weights_digest="",
        context_length=PROMPT + MAX_TOKENS,
        num_slots=ROWS,
        num_threads=1,
        options={"engine": "fused", "guesses": guesses},
    )
    driver.load(spec, lambda fraction, what: None)
    return driver


def run(driver: NativeDriver, items: Sequence[WorkItem]) -> Batch:
    """All of them at once, to their ends."""
    made = Batch()
    began_s = time.process_time()
    for item in items:
        driver.submit(item)
    made.compile_s = time.process_time() - began_s
    began_s = time.process_time()
    while driver.wait_s() is not None:
        for event in driver.step():
            name = event.request_id
            if isinstance(event, Tokens):
                made.texts[name] = made.texts.get(name, "") + event.text
            elif isinstance(event, Finished):
                made.num_tokens[name] = event.usage.completion_tokens
                if event.reason is FinishReason.STOP:
                    made.stopped.add(name)
            else:
                raise RuntimeError(f"{name}: {event}")
    made.run_s = time.process_time() - began_s
    return made


def bound_items(rng: random.Random, vocab_size: int, schemas: Sequence[Any]) -> list[WorkItem]:
    """One for each schema."""
    return [
        WorkItem(
            str(i),
            array("i", models.tokens(PROMPT, rng.randrange(2**30), vocab_size)).tobytes(),
            Sampling(temperature=1.0, seed=rng.randrange(2**30), max_tokens=MAX_TOKENS),
            grammar=Grammar("json_schema", json.dumps(schema)),
            cache_salt=f"bound {rng.random()}",
        )
        for i, schema in enumerate(schemas)
    ]


def freed(items: Sequence[WorkItem], like: Batch) -> list[WorkItem]:
    """The same without a grammar, each as long as it was with one."""
    made = []
    for item in items:
        count = like.num_tokens[item.request_id]
        sampling = msgspec.structs.replace(item.sampling, max_tokens=count, ignore_eos=True)
        salt = f"free {item.cache_salt}"  # the prompt is read anew
        made.append(msgspec.structs.replace(item, sampling=sampling, grammar=None, cache_salt=salt))
    return made


def measure(result: Result, shape: str, guesses: bool, num_batches: int) -> None:
    """The rows of one model, with or without guesses."""
    driver, vocab_size = load(shape, guesses), models.SHAPES[shape].vocab_size
    rng = random.Random(1)
    compiles, bound_ms, free_ms, lengths = [], [], [], []
    num_stopped = num_valid = 0
    warm = bound_items(rng, vocab_size, [{"type": "object"}])
    run(driver, warm)  # the tokenizer's own tables
    for _ in range(num_batches):
        schemas = [random_schema(rng, 3, root="object") for _ in range(ROWS)]
        items = bound_items(rng, vocab_size, schemas)
        bound = run(driver, items)
        free = run(driver, freed(items, bound))
        compiles.append(1000 * bound.compile_s / ROWS)
        bound_ms.append(bound.token_ms)
        free_ms.append(free.token_ms)
        lengths.append(sum(bound.num_tokens.values()) / ROWS)
        num_stopped += len(bound.stopped)
        num_valid += sum(is_valid(bound.texts[i], schemas[int(i)]) for i in bound.stopped)
    driver.unload()
    what = f"{shape}, {'guesses' if guesses else 'no guesses'}"
    num_answers = num_batches * ROWS
    result.add(
        single(f"{what}: ended by stop of {num_answers}", "%", [100 * num_stopped / num_answers])
    )
    result.add(single(f"{what}: valid of those", "%", [100 * num_valid / max(1, num_stopped)]))
    result.add(single(f"{what}: tokens of an answer", "tokens", lengths))
    result.add(single(f"{what}: compile a schema", "ms", compiles))
    result.add(paired(f"{what}: a token", "ms", bound_ms, "no grammar", free_ms))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--answers", type=int, default=1000)
    parser.add_argument("--shapes", nargs="+", default=["60m"], choices=sorted(models.SHAPES))
    args = parser.parse_args()
    result = Result("structured", command("structured"))
    for shape in args.shapes:
        for guesses in (True, False):
            measure(result, shape, guesses, -(-args.answers // ROWS))
    print(result.write())


if __name__ == "__main__":
    main()
