"""Tools in bodies: what they are, which of them is to be called, and what of it a model is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from llmos.errors import InvalidRequest, UnsupportedParameter
from llmos.shapes.fields import fault, wire_sized
from llmos.shapes.structured import schema_text
from llmos.shapes.toolcalls.stream import Wanted

MAX_TOOLS = 128
MAX_CALLS = 128
"""In one message."""

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")

_TOOL_KEYS = {"name", "description", "parameters", "strict"}
_MODES = ("none", "auto", "required")

Tool = dict[str, Any]
"""As a chat's body has it: `{"type": "function", "function": {...}}`."""


def read_tools(value: Any) -> Any:
    """Of a chat's body. For a field's validator."""
    return [_tool(_nested(one, str(i)), f"{i}.function.") for i, one in enumerate(read_list(value))]


def read_flat_tools(value: Any) -> Any:
    """Of a response's body, where a tool's fields stand beside its type."""
    return [_tool(_flat(one, str(i)), f"{i}.") for i, one in enumerate(read_list(value))]


def read_tool(function: Any, at: str) -> Tool:
    """Of what is a function without saying so."""
    if not isinstance(function, dict):
        raise fault("must be an object", at)
    return _tool(function, f"{at}.")


def read_list(value: Any) -> list[Any]:
    """Not too long a one."""
    if not isinstance(value, list):
        raise fault("must be a list of tools")
    if len(value) > MAX_TOOLS:
        raise fault(f"more than {MAX_TOOLS} tools")
    return value


def _function(one: Any, at: str) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise fault("must be an object", at)
    kind = one.get("type")
    if kind != "function":
        said = str(kind)[:64]
        raise fault(f"tools of type {said!r} are not supported", f"{at}.type", "unsupported")
    return one


def _nested(one: Any, at: str) -> dict[str, Any]:
    for key in _function(one, at):
        if key not in {"type", "function"}:
            raise fault("unknown field", f"{at}.{key[:64]}")
    if not isinstance(function := one.get("function"), dict):
        raise fault("must be an object", f"{at}.function")
    return function


def _flat(one: Any, at: str) -> dict[str, Any]:
    return {key: value for key, value in _function(one, at).items() if key != "type"}


def _tool(function: dict[str, Any], at: str) -> Tool:
    for key in function:
        if key not in _TOOL_KEYS:
            raise fault("unknown field", f"{at}{key[:64]}")
    name = function.get("name")
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise fault("must be 1 to 64 letters, digits, '_', '-' or '.'", f"{at}name")
    parameters = function.get("parameters")
    if parameters is None:
        parameters = {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise fault("must be an object", f"{at}parameters")
    schema_text(parameters, f"{at}parameters")
    wire_sized(parameters, f"{at}parameters")
    made = {
        "name": name,
        "description": function.get("description") or "",
        "parameters": parameters,
    }
    if not isinstance(made["description"], str):
        raise fault("must be a text", f"{at}description")
    if (strict := function.get("strict")) is not None:
        if not isinstance(strict, bool):
            raise fault("must be true or false", f"{at}strict")
        made["strict"] = strict
    return {"type": "function", "function": made}


def read_choice(value: Any) -> Any:
    """Of `tool_choice`: a mode, `name:` and a tool's name, or `allowed:`, a mode and the names of
    those that may be called. For a field's validator."""
    if value in _MODES:
        return value
    if not isinstance(value, dict):
        raise fault(f"is not one of {', '.join(_MODES)}, nor names a tool")
    kind = value.get("type")
    if kind == "allowed_tools":
        return _allowed(value)
    if kind != "function":
        raise fault(f"{str(kind)[:64]!r} is not supported", "type", "unsupported")
    name = value.get("name")
    if isinstance(value.get("function"), dict):
        name = value["function"].get("name")
    if not isinstance(name, str):
        raise fault("must name a tool", "function.name")
    return f"name:{name}"


def _allowed(value: dict[str, Any]) -> str:
    """A chat nests it, a response does not."""
    given, at = value, ""
    if "allowed_tools" in value:
        given, at = value["allowed_tools"], "allowed_tools."
    if not isinstance(given, dict):
        raise fault("must be an object", "allowed_tools")
    if (mode := given.get("mode")) not in {"auto", "required"}:
        raise fault("must be 'auto' or 'required'", f"{at}mode")
    tools = given.get("tools")
    if not isinstance(tools, list) or not tools:
        raise fault("must be a non-empty list of tools", f"{at}tools")
    names = [read_choice(tool) for tool in tools]
    if not all(name.startswith("name:") for name in names):
        raise fault("must name functions", f"{at}tools")
    return f"allowed:{mode}:" + ",".join(name.removeprefix("name:") for name in names)


def narrow(tools: Sequence[Tool], choice: str) -> tuple[list[Tool], str]:
    """The tools that may be called, and which of these is to be: `allowed:` is gone."""
    if not choice.startswith("allowed:"):
        return list(tools), choice
    _, mode, names = choice.split(":", 2)
    kept = set(names.split(","))
    return [tool for tool in tools if tool["function"]["name"] in kept], mode


def choice_object(choice: str) -> str | dict[str, Any]:
    """As a response tells it."""
    if choice.startswith("name:"):
        return {"type": "function", "name": choice.removeprefix("name:")}
    if not choice.startswith("allowed:"):
        return choice
    _, mode, names = choice.split(":", 2)
    tools = [{"type": "function", "name": name} for name in names.split(",")]
    return {"type": "allowed_tools", "mode": mode, "tools": tools}


def check_choice(
    choice: str, tools: Sequence[Tool], names: tuple[str, str] = ("tool_choice", "tools")
) -> None:
    """Raises InvalidRequest when what is to be called is not there. `names`: of the fields."""
    if choice in {"none", "auto"}:
        return
    param, of_tools = names
    known = tool_names(tools)
    if not known:
        raise InvalidRequest(f"{param!r} needs {of_tools!r}.", param=param)
    if choice == "required":
        return
    for name in choice.rpartition(":")[2].split(","):
        if name not in known:
            raise InvalidRequest(f"No tool is called {name[:64]!r}.", param=param)


def tool_names(tools: Sequence[Tool]) -> tuple[str, ...]:
    """In order."""
    return tuple(tool["function"]["name"] for tool in tools)


def wanted_of(
    tools: Sequence[Tool], choice: str, parallel: bool, *, as_function: bool = False
) -> Wanted:
    """What is looked for in the answer, and how it is told."""
    if choice == "none":
        return Wanted()
    tools, choice = narrow(tools, choice)
    is_named = choice.startswith("name:")
    return Wanted(tool_names(tools), None if parallel and not is_named else 1, as_function)


def read_calls(value: Any) -> Any:
    """Calls that an earlier answer made, in a message of the assistant's."""
    if not isinstance(value, list):
        raise fault("must be a list of calls")
    if len(value) > MAX_CALLS:
        raise fault(f"more than {MAX_CALLS} calls")
    return [_call(one, str(i)) for i, one in enumerate(value)]


def _call(one: Any, at: str) -> dict[str, Any]:
    if not isinstance(one, dict):
        raise fault("must be an object", at)
    if one.get("type", "function") != "function":
        raise fault("only calls of functions are supported", f"{at}.type", "unsupported")
    function, name = one.get("function"), one.get("id")
    if not isinstance(name, str) or not 1 <= len(name) <= 128:
        raise fault("must be an id", f"{at}.id")
    if not isinstance(function, dict):
        raise fault("must be an object", f"{at}.function")
    for key in ("name", "arguments"):
        if not isinstance(function.get(key), str):
            raise fault("must be a text", f"{at}.function.{key}")
    kept = {"name": function["name"], "arguments": function["arguments"]}
    return {"id": name, "type": "function", "function": kept}


def refuse_format(form: str, known: Sequence[str]) -> None:
    """Raises UnsupportedParameter for a format nobody reads."""
    if form and form not in known:
        raise UnsupportedParameter(
            f"'llmos.tool_format' is not one of {', '.join(sorted(known))}.",
            param="llmos.tool_format",
        )
