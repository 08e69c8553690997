"""The model card (README.md of the folder), written from what was measured."""

from __future__ import annotations

from typing import Any

from tools.pilot.corpus import HELD_OUT_IN
from tools.pilot.topics.words import PAIRS

SECTIONS = (
    "What it is",
    "What it can do",
    "What it cannot do",
    "Use",
    "Training data",
    "Training",
    "Evaluation",
    "What it gets wrong",
    "Licence",
)

_HEAD = """---
license: apache-2.0
language: [en, zh]
pipeline_tag: text-generation
library_name: transformers
---

# pilot, v0

The small chat model that ships with LLMOS, so that a fresh install answers without a download.

## What it is

A decoder-only transformer of the Llama architecture with {millions:.2f} million parameters \
({layers} layers, width {width}, {heads} query and {kv_heads} key-value heads, shared embeddings), \
stored in bfloat16, with a byte-level BPE vocabulary of {vocab} tokens and a context of {context} \
tokens. It speaks simple English and simple Chinese.

## What it can do

- greet, say who it is, take thanks and leave;
- say what LLMOS is, what its parts are called, and which `llmos` command does what;
- try small sums (up to 20 + 20 and 9 × 9), counting, comparing numbers: often right where it has
  met the numbers, mostly wrong where it has not;
- translate some {words} words between English and Chinese; opposites, days, months, plain facts;
- remember a liking or a common first name told earlier in the chat, repeat a word or two: not
  reliably, and a name it has never met comes out as another;
- tell a tiny story;
- say that it does not know.

## What it cannot do

It knows nothing else. It cannot reason, write or explain code, hold facts about the world, follow
free instructions, calculate, or run commands: it only names them. It has not been tuned for safety
beyond declining what it does not know, and declining is itself learned from few examples: **it may
answer a question outside its topics with something from inside them, in a confident tone.** Do not
rely on its answers. Other languages than English and Chinese get a refusal at best.

## Use

    llmos run pilot "What is LLMOS?"

The chat template takes the roles system, user and assistant; a turn ends with `<|im_end|>`. System
messages are accepted and have little effect. Greedy decoding (temperature 0) is best.

## Training data

All text was written for this project and put together by the seeded generator in `tools/pilot`
(templates in `tools/pilot/topics`); no public, scraped or private data set was used. English and
Chinese in equal shares. One in {held_out_in} of the things that can be asked (by the hash of the
question, or of the numbers in a sum) is never trained on and is kept for evaluation.

## Training

`make pilot` makes this folder again: one thread, fixed seeds, float32, {steps} steps of at most \
3,072 tokens ({parameters}), on a shared two-core machine without an accelerator: {wall_min:.0f} \
minutes by the clock, {cpu_min:.0f} of processor time. The same machine with the same versions \
gives the same bytes (tested on 200 steps); another processor may round otherwise. Versions, \
seeds and digests are in `recipe.json`.{note}
"""

_EVALUATION = """
## Evaluation

Greedy answers, weights as stored, arithmetic in float32. Right means: the answer holds the words or
the number that it must hold, and ends by itself. *Held out* prompts come from the same templates
but were never trained on (sums: those numbers never met); *seen* ones may have been. Both measure
the templates' world only.

| topic | language | held out | seen |
|---|---|---|---|
{rows}

Of {asked} held-out answers {stopped} ended by themselves.

Prompts **written by hand apart from the generator** (`tools/pilot/probes.py`, before any answer was
seen), most of them in a person's own words, a few like "Hello" also in the templates: English {en},
Chinese {zh}. This is the more honest figure.

## What it gets wrong

Hand-written prompts it failed, with its answers:

{wrong}

## Licence

Apache-2.0, as LLMOS itself.
"""


def write(record: dict[str, Any], measured: dict[str, Any], vocab: int, context: int) -> str:
    """The card's text, from the contents of `recipe.json` and of the evaluation."""
    recipe, spent = record["recipe"], record["training"]
    head = _HEAD.format(
        millions=record["num_parameters"] / 1e6,
        layers=recipe["num_hidden_layers"],
        width=recipe["hidden_size"],
        heads=recipe["num_attention_heads"],
        kv_heads=recipe["num_key_value_heads"],
        vocab=vocab,
        words=sum(map(len, PAIRS.values())),
        context=context,
        held_out_in=HELD_OUT_IN,
        steps=recipe["steps"],
        parameters="Muon for the matrices, AdamW for the rest; warm-up, stable, decay",
        wall_min=spent["wall_s"] / 60,
        cpu_min=spent["cpu_s"] / 60,
        note="".join(f" {note}" for note in spent.get("notes", [])),
    )
    return head + _evaluation(measured)


def _evaluation(measured: dict[str, Any]) -> str:
    held_out, seen, hand = measured["held_out"], measured["seen"], measured["hand_written"]
    rows = [
        f"| {cell.replace(' ', ' | ')} | {_share(held_out[cell])} | {_share(seen[cell])} |"
        for cell in held_out
    ]
    rows += [
        f"| **all** | {language} | {_share(_total(held_out, language))} "
        f"| {_share(_total(seen, language))} |"
        for language in ("en", "zh")
    ]
    wrong = [
        f"- {case['prompt']} → {_one_line(case['answer'])}"
        for language in ("en", "zh")
        for case in hand[language]["wrong"]
    ]
    return _EVALUATION.format(
        rows="\n".join(rows),
        asked=sum(cell["asked"] for cell in held_out.values()),
        stopped=sum(cell["stopped"] for cell in held_out.values()),
        en=_share(hand["en"]),
        zh=_share(hand["zh"]),
        wrong="\n".join(wrong) or "- none of them",
    )


def _total(cells: dict[str, Any], language: str) -> dict[str, int]:
    chosen = [cell for name, cell in cells.items() if name.endswith(language)]
    return {key: sum(cell[key] for cell in chosen) for key in ("right", "asked")}


def _share(cell: dict[str, Any]) -> str:
    return f"{cell['right']}/{cell['asked']}"


def _one_line(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= 120 else flat[:117] + "..."
