"""The page of the HTTP API: every route with its fields and errors, from the OpenAPI document."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from typing import Any

from llmos.api.app import ROUTES
from llmos.api.openapi import EVENTS, document, meaning
from llmos.api.schemas import REF
from llmos.errors import ERRORS
from llmos.shapes.status import STATUS

Json = dict[str, Any]
MANY = 2**31 - 1

HEAD = """# The HTTP API

Every route of the server. The same as a document of OpenAPI 3.1 is at `/openapi.json` of a running
server. A route wants a key, `Authorization: Bearer KEY`, unless it is marked *open*.
[openai.md](openai.md) says which of OpenAI's fields are honoured.

A field in **bold** has to be given. Absent and `null` are the same. What a [shape](#shapes) is
called stands where a field has one. Every answer has the header `x-request-id`, which `llmos why`
and the log know it by.
"""

ERRORS_HEAD = """## Errors

Every error is an [ErrorAnswer](#erroranswer), in a stream an event of its own. Where the table says
*again*, the same request may succeed later; `retry-after` tells when. What may happen to any route
is not repeated with each: `internal_error`, `worker_lost`, `shutting_down`, `storage_error`.
"""

SHAPES_HEAD = """## Shapes

What bodies and answers are made of. Times that end in `_ns` are UTC in nanoseconds, sizes in
`_bytes` bytes, durations in `_s` seconds.
"""

TITLES = {"v1": "OpenAI's", "os": "LLMOS's own", "": "Health and metrics"}


def page() -> str:
    """All of it."""
    made = document(ROUTES)
    schemas = made["components"]["schemas"]
    schemas |= {name: _without_null(schemas[name]) for name in _asked(made["paths"], schemas)}
    parts: dict[str, list[tuple[str, Json]]] = {part: [] for part in TITLES}
    for path, operations in made["paths"].items():
        first = path.split("/")[1]
        for method, operation in operations.items():
            route = f"{method.upper()} {path}"
            parts[first if first in parts else ""].append((route, operation))
    lines = [HEAD]
    for part, routes in parts.items():
        lines += [f"## {TITLES[part]}", "", *_contents(routes)]
        for route, operation in routes:
            lines += _route(route, operation, schemas)
    lines += [*_errors(), SHAPES_HEAD]
    inner = set(_named_in(schemas))
    bodies = {_name(_body_of(operation)) for routes in parts.values() for _, operation in routes}
    for name, schema in schemas.items():
        if name in inner or name not in bodies:
            lines += [f"### {name}", "", *_shape(schema)]
    return "\n".join(lines).rstrip() + "\n"


def _named_in(schema: Json) -> list[str]:
    return re.findall(f'"{REF}(\\w+)"', json.dumps(schema))


def _asked(paths: Json, schemas: Json) -> set[str]:
    """Shapes that bodies are made of."""
    bodies = [
        _body_of(operation) for operations in paths.values() for operation in operations.values()
    ]
    found, left = set[str](), [name for body in bodies for name in _named_in(body)]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            left += _named_in(schemas[name])
    return found


def _without_null(shape: Json) -> Json:
    """A body's, of which the page says once that a null is as nothing."""
    required = shape.get("required", ())
    fields = {
        name: field if name in required else _no_null(field)
        for name, field in shape.get("properties", {}).items()
    }
    return shape | ({"properties": fields} if fields else {})


def _no_null(field: Json) -> Json:
    made = dict(field)
    for key, null in (("anyOf", {"type": "null"}), ("enum", None)):
        if kept := [one for one in field.get(key, ()) if one != null]:
            made[key] = kept
    return made


def _contents(routes: list[tuple[str, Json]]) -> Iterator[str]:
    yield from ("| route | what |", "|---|---|")
    for route, operation in routes:
        is_open = "" if operation["security"] else " *open*"
        yield f"| [`{route}`](#{anchor(route)}) | {operation['summary']}{is_open} |"
    yield ""


def anchor(heading: str) -> str:
    """As the site and GitHub make it of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _route(route: str, operation: Json, schemas: Json) -> Iterator[str]:
    said = f"{operation['summary']} {operation['description']}".strip()
    yield from (f"### {route}", "", said, "")
    for place, title in (("query", "after the `?`"), ("header", "header")):
        given = [p for p in operation["parameters"] if p["in"] == place]
        fields = {p["name"]: {**p["schema"], "description": p["description"]} for p in given}
        yield from _table(title, fields, [])
    body = _body_of(operation)
    schema = schemas.get(_name(body), body)
    if _name(body):
        yield from (f"Body: {prose(schema.get('description', _name(body)))}", "")
    elif operation.get("requestBody"):
        yield from (f"Body: `{next(iter(operation['requestBody']['content']))}`", "")
    yield from _table("field", schema.get("properties", {}), schema.get("required", []))
    yield from (f"Answer: {_answer(operation['responses']['200']['content'])}.", "")
    same = operation["responses"]["200"]["content"]
    for status, response in operation["responses"].items():
        if status not in {"200", "206"} and response["content"] == same:
            yield from (f"With status {status}: {response['description']}", "")
    codes = [code for r in operation["responses"].values() for code in _codes(r)]
    if codes:
        yield from (f"Errors: {', '.join(codes)}.", "")


def _body_of(operation: Json) -> Json:
    content = operation.get("requestBody", {}).get("content", {})
    found: Json = next(iter(content.values()), {}).get("schema", {})
    return found


def _codes(response: Json) -> list[str]:
    return re.findall(r"^- (`\w+`):", response["description"], re.MULTILINE)


def _answer(content: Json) -> str:
    told = []
    for kind, media in content.items():
        if kind == EVENTS:
            shapes = media["x-events"].items()
            events = [f"`{n}` {_type(s)}" if n else f"data {_type(s)}" for n, s in shapes]
            told.append(f"events (`{kind}`): {', '.join(events)}")
        else:
            told.append(_type(media["schema"]) if "schema" in media else f"`{kind}`")
    return "; or ".join(told)


def _shape(schema: Json) -> Iterator[str]:
    if "enum" in schema:
        words = ", ".join(f"`{word}`" for word in schema["enum"])
        yield from (f"{prose(schema.get('description', ''))} One of {words}.".strip(), "")
        return
    if "description" in schema:
        yield from (prose(schema["description"]), "")
    yield from _table("field", schema.get("properties", {}), schema.get("required", []))


def prose(text: str) -> str:
    """A docstring's paragraphs, a line each."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _table(title: str, fields: Json, required: list[str]) -> Iterator[str]:
    """Without a column that would be empty."""
    if not fields:
        return
    rows = [_row(name, field, name in required) for name, field in fields.items()]
    heads = (title, "type", "default", "meaning")
    kept = [i for i in range(4) if i < 2 or any(row[i] for row in rows)]
    yield "| " + " | ".join(heads[i] for i in kept) + " |"
    yield "|" + "---|" * len(kept)
    for row in rows:
        yield "| " + " | ".join(row[i] for i in kept) + " |"
    yield ""


def _row(name: str, field: Json, is_required: bool) -> tuple[str, str, str, str]:
    shown = f"**`{name}`**" if is_required else f"`{name}`"
    default = field.get("default")
    told = "" if default in (None, "", [], {}) else f"`{json.dumps(default)}`"
    cells = (shown, _type(field), told, " ".join(field.get("description", "").split()))
    return tuple(cell.replace("|", "\\|") for cell in cells)  # type: ignore[return-value]


def _name(schema: Json) -> str:
    return str(schema.get("$ref", "")).rpartition("/")[2]


def _type(schema: Json) -> str:
    """As a reader of the page wants it: `integer, 1 to 20`, `list of Message`, `text or none`."""
    if name := _name(schema):
        return f"[{name}](#{anchor(name)})"
    if "enum" in schema or "const" in schema:
        words = schema.get("enum", [schema.get("const")])
        return " or ".join(map(_word, words))
    if parts := schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf"):
        return " or ".join(dict.fromkeys(_type(part) for part in parts))
    kind = schema.get("type")
    if kind == "array":
        return f"list of {_type(schema.get('items', {}))}{_bounds(schema, 'Items')}"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"object of {_type(inner)}" if isinstance(inner, dict) and inner else "object"
    words = {"string": "text", "null": "none", "boolean": "true or false", None: "any JSON"}
    return f"{words.get(kind, kind)}{_bounds(schema, 'Length')}"


def _word(word: Any) -> str:
    if word is None:
        return "none"
    return f"`{word if word and isinstance(word, str) else json.dumps(word)}`"


def _bounds(schema: Json, unit: str) -> str:
    """`, 0 to 2`; of a text how many characters, of a list how many items."""
    low = schema.get("minimum", schema.get("exclusiveMinimum"))
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    if high is not None and high >= MANY:  # what fits into a number is no news
        high = None
    if low is not None and low <= -MANY:
        low = None
    if low is not None and high is not None:
        return f", {low:,} to {high:,}"
    if low is not None:
        return f", {'over' if 'exclusiveMinimum' in schema else 'from'} {low:,}"
    most = schema.get(f"max{unit}")
    return "" if most is None else f", at most {most:,}"


def _errors() -> Iterator[str]:
    yield ERRORS_HEAD
    yield from ("| code | status | | meaning |", "|---|---|---|---|")
    for code, (status, _) in sorted(STATUS.items(), key=lambda pair: (pair[1].status, pair[0])):
        again = "*again*" if ERRORS[code].retryable else ""
        yield f"| `{code}` | {status} | {again} | {meaning(ERRORS[code]).replace('|', '/')} |"
    yield ""
