"""Random schemas whose values are bounded, and what has to be true of a value."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema

WORDS = ("a", "b", "the", "red", "Grün", "好")


def random_schema(rng: random.Random, depth: int = 2, root: str = "") -> dict[str, Any]:
    """Every value of it ends after a bounded number of characters."""
    kinds = ["string", "integer", "number", "boolean", "null", "enum", "const"]
    inner = ["object", "object", "array", "anyOf"] if depth else []
    kind = root or rng.choice([*kinds, *inner])
    if kind == "string":
        low = rng.randrange(3)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randrange(6)}
    if kind == "integer":
        low = rng.randrange(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randrange(1, 200)}
    if kind == "number":
        return {"type": "number", "multipleOf": 0.25, "minimum": 0, "maximum": 8}
    if kind == "enum":
        return {"enum": rng.sample(WORDS, k=rng.randrange(1, 4))}
    if kind == "const":
        return {"const": rng.choice([*WORDS, 7, None])}
    if kind == "array":
        low = rng.randrange(3)
        items = random_schema(rng, depth - 1)
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + 2}
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth - 1) for _ in range(2)]}
    if kind == "object":
        names = rng.sample(["name", "age", "x", "tag s", "ü"], k=rng.randrange(1, 4))
        return {
            "type": "object",
            "properties": {name: random_schema(rng, depth - 1) for name in names},
            "required": names[: rng.randrange(len(names) + 1)],
            "additionalProperties": False,
        }
    return {"type": kind}


def is_valid(text: str, schema: dict[str, Any]) -> bool:
    """As an independent validator sees it."""
    try:
        jsonschema.Draft202012Validator(schema).validate(json.loads(text))
    except (ValueError, jsonschema.ValidationError):
        return False
    return True
