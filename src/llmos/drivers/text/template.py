"""Chat templates in a Jinja sandbox that cannot reach anything, and cannot run for ever.

Jinja's immutable sandbox keeps a template from attributes and from changing what it is given. Ours
adds bounds: loops, calls, joined and repeated text, and output are counted while it renders, by
rewriting the parsed template (every loop's iterable, every piece of text, every `~`) and by
intercepting operators and methods. Nothing is folded at compile time, where nobody counts.
"""

# ruff: noqa: SIM905 (a list of names reads better as text)
from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from typing import Any, NoReturn

import jinja2
from jinja2 import nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from llmos.drivers.text.budget import Budget
from llmos.drivers.text.limits import LIMITS, TemplateLimits
from llmos.errors import InvalidRequest

_BUDGET: ContextVar[Budget] = ContextVar("budget")

_FILTERS = """abs capitalize d default dictsort e escape first float format groupby indent int items
join last length list lower map max min reject rejectattr replace reverse round safe select
selectattr sort string striptags sum title trim truncate unique upper urlencode wordcount
batch slice count attr""".split()

_SIZED = {"indent", "batch", "slice", "truncate", "round"}
_ITERATING = set("map select reject selectattr rejectattr list join unique sum min max".split())

_WIDE = re.compile(r"\d{4,}|\*|:[^{}]*\{")
"""In a format string: a width of four digits, or one that is an argument."""


class ChatTemplate:
    """A compiled template. Raises InvalidRequest when it cannot be compiled or rendered."""

    def __init__(self, source: str, limits: TemplateLimits = LIMITS) -> None:
        if len(source) > limits.source_chars:
            raise InvalidRequest("the model's chat template is too long", param="messages")
        self._limits = limits
        environment = _Environment()
        try:
            tree = _Bounding().visit(environment.parse(source))
            code = environment.compile(tree)
            self._template = jinja2.Template.from_code(environment, code, environment.globals)
        except (TemplateError, RecursionError, SyntaxError, ValueError) as error:
            raise InvalidRequest(
                f"the model's chat template is broken: {_say(error)}", param="messages"
            ) from error

    def render(self, variables: dict[str, Any]) -> str:
        """The prompt's text."""
        token = _BUDGET.set(Budget(self._limits))
        try:
            return self._template.render(variables)
        except Exception as error:
            raise InvalidRequest(
                f"the model's chat template refused: {_say(error)}", param="messages"
            ) from error
        finally:
            _BUDGET.reset(token)


def _say(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:300]


class _Bounding(NodeTransformer):
    """Puts the counting into the tree."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 (jinja's name)
        """Each turn of a loop is a step."""
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "llmos_each", [], [], None, None, lineno=node.lineno)
        return node

    def visit_TemplateData(self, node: nodes.TemplateData) -> nodes.Node:  # noqa: N802
        """Plain text goes through `finalize` like everything else that is put out."""
        return nodes.Const(node.data, lineno=node.lineno)

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        """`a ~ b` is counted."""
        self.generic_visit(node)
        parts = nodes.List(node.nodes, lineno=node.lineno)
        return nodes.Filter(parts, "llmos_concat", [], [], None, None, lineno=node.lineno)

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        """Nesting is measured where it is made: `[x, x]` forty times over is never built."""
        return self._made(node)

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        """As lists."""
        return self._made(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        """As lists, unless it is what is assigned to."""
        if node.ctx == "load":
            return self._made(node)
        return node

    def _made(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return nodes.Filter(node, "llmos_made", [], [], None, None, lineno=node.lineno)


class _Generation(Extension):
    """`{% generation %}` marks what the assistant said; here it is only its body."""

    tags = {"generation"}  # noqa: RUF012 (jinja's interface)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements up to `{% endgeneration %}`."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Environment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[loopcontrols, _Generation],
            finalize=_finalize,
        )
        self.filters = {name: _bounded(name, self.filters[name]) for name in _FILTERS}
        self.filters |= {
            "tojson": _tojson,
            "llmos_each": _each,
            "llmos_concat": _concat,
            "llmos_made": _made,
        }
        self.globals |= {"raise_exception": _raise, "strftime_now": _strftime_now}
        for name in ("lipsum", "cycler", "joiner"):
            self.globals.pop(name, None)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        budget = _BUDGET.get()
        if operator == "**":
            if abs(right) > 64 or abs(left) > 2**32:
                raise SecurityError("a power that large")
        elif operator == "*":
            _check_product(budget, left, right)
        elif operator == "+" and isinstance(left, str | list | tuple):
            budget.make(len(left) + len(right))
        elif operator == "%" and isinstance(left, str):
            _check_format(budget, left)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        budget = _BUDGET.get()
        budget.tick()
        method = getattr(obj, "__wrapped__", obj)
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            args = _check_method(budget, owner, method.__name__, args, kwargs)
        result = super().call(context, obj, *args, **kwargs)
        if isinstance(result, str):
            budget.make(len(result))
        else:
            _measure(budget, result)
        return result


def _measure(budget: Budget, value: Any) -> None:
    """Counts what is inside containers, each time it is inside."""
    inside = [value]
    while inside:
        item = inside.pop()
        if isinstance(item, dict):
            inside.extend(item)
            inside.extend(item.values())
        elif isinstance(item, list | tuple | set):
            inside.extend(item)
        else:
            continue
        for _ in item:
            budget.tick()


def _to_text(budget: Budget, value: Any) -> str:
    """`str()`, counted before it is made."""
    if isinstance(value, Namespace):
        raise SecurityError("a namespace is not text")
    if not isinstance(value, str):
        _measure(budget, value)
        value = str(value)
    budget.make(len(value))
    return value  # type: ignore[no-any-return]


def _check_product(budget: Budget, left: Any, right: Any) -> None:
    for text, number in ((left, right), (right, left)):
        if isinstance(text, str | list | tuple) and isinstance(number, int):
            budget.make(len(text) * max(0, number))
            return
    if isinstance(left, int) and isinstance(right, int):
        budget.make(left.bit_length() + right.bit_length())
        if left.bit_length() + right.bit_length() > 4096:
            raise SecurityError("a product that large")


def _check_format(budget: Budget, text: str) -> None:
    budget.make(len(text))
    if _WIDE.search(text):
        raise SecurityError("a format with widths that large")


def _check_method(
    budget: Budget, owner: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """Bounds a string's method before it runs. The arguments to call it with."""
    for number in (*args, *kwargs.values()):
        if name not in {"find", "rfind", "index", "count", "startswith", "endswith"}:
            budget.ask(number)
    if name in {"format", "format_map"}:
        _check_format(budget, owner)
    elif name == "replace" and len(args) > 1:
        _check_replace(budget, owner, args[0], args[1])
    elif name == "join" and args:
        parts = list(args[0])
        budget.make(sum(len(part) + len(owner) for part in parts if isinstance(part, str)))
        return (parts, *args[1:])
    elif name == "translate":
        raise SecurityError("translate is not offered")
    return args


def _check_replace(budget: Budget, text: Any, old: Any, new: Any) -> None:
    text, old, new = str(text), str(old), str(new)
    budget.make(len(text) + (text.count(old) if old else len(text) + 1) * len(new))


def _bounded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter with its bounds. It takes the context, so that Jinja never folds it."""
    passes = getattr(function, "jinja_pass_arg", None)

    @pass_context
    def call(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:
        budget = _BUDGET.get()
        budget.tick()
        value = _check_filter(budget, name, value, args, kwargs)
        first: tuple[Any, ...] = ()
        if passes is not None:
            passed = {"context": context, "eval_context": context.eval_ctx}
            first = (passed.get(passes.name, context.environment),)
        result = function(*first, value, *args, **kwargs)
        if isinstance(result, str):
            budget.make(len(result))
        return result

    return call


def _check_filter(
    budget: Budget, name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """Bounds a filter before it runs. The value to run it on."""
    numbers = [number for number in (*args, *kwargs.values()) if isinstance(number, int)]
    if name in _SIZED:
        for number in numbers:
            budget.ask(number)
    if name in _ITERATING and not isinstance(value, str | Undefined):
        value = _count(budget, value)
    if name == "replace" and len(args) > 1:
        _check_replace(budget, value, args[0], args[1])
    elif name == "format":
        _check_format(budget, str(value))
    elif name == "string":
        value = _to_text(budget, value)
    elif name == "join":
        value = [_to_text(budget, part) for part in value]
        between = str(args[0]) if args else str(kwargs.get("d", ""))
        budget.make(len(between) * len(value))
    elif name == "indent":
        budget.make((str(value).count("\n") + 1) * max([4, *numbers]))
    return value


def _count(budget: Budget, iterable: Iterable[Any]) -> Iterator[Any]:
    for item in iterable:
        budget.tick()
        yield item


@pass_context
def _finalize(context: Context, value: Any) -> str:
    return _to_text(_BUDGET.get(), value)


@pass_context
def _each(context: Context, iterable: Iterable[Any]) -> Iterator[Any]:
    return _count(_BUDGET.get(), iterable)


@pass_context
def _made(context: Context, value: Any) -> Any:
    _measure(_BUDGET.get(), value)
    return value


@pass_context
def _concat(context: Context, parts: list[Any]) -> str:
    budget = _BUDGET.get()
    return "".join([_to_text(budget, part) for part in parts])


@pass_context
def _tojson(  # noqa: PLR0917 (as templates call it)
    context: Context,
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As Transformers' templates expect it: no HTML escapes."""
    budget = _BUDGET.get()
    budget.ask(indent)
    _measure(budget, value)
    made = json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )
    budget.make(len(made))
    return made


def _raise(message: str) -> NoReturn:
    raise TemplateError(str(message)[:1000])


def _strftime_now(form: str) -> str:
    if len(form) > 200 or re.search(r"\d{3,}", form):
        raise SecurityError("a date format that long")
    return datetime.datetime.now().astimezone().strftime(form)
