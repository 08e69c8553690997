"""Mutants made mechanically: small changes of the core's syntax tree, chosen by a seed."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.syntax import parse

CORE = Path(__file__).resolve().parents[2] / "src" / "llmos" / "kernel" / "core"

_COMPARES: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_SUMS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
}


@dataclass(frozen=True)
class Mutant:
    """One module of the core with one change. `what`: where and which."""

    name: str
    module: str
    source: str
    what: str


def read(module: str) -> str:
    """The source of `llmos.kernel.core.<module>`."""
    return (CORE / (module.replace(".", "/") + ".py")).read_text()


def modules() -> list[str]:
    """Those that decide of requests and replicas; events, decisions and limits only hold fields.

    Jobs are not simulated: what decides of them is judged by tests of their own.
    """
    found = [".".join(path.relative_to(CORE).with_suffix("").parts) for path in CORE.rglob("*.py")]
    skipped = {"decisions", "events", "limits"}
    return sorted(
        m
        for m in found
        if m not in skipped and not m.endswith("__init__") and not m.startswith("jobs")
    )


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What a node may become, each with its name."""
    if isinstance(node, ast.Compare) and type(node.ops[0]) in _COMPARES:
        other = copy.copy(node)
        other.ops = [_COMPARES[type(node.ops[0])](), *node.ops[1:]]
        yield "compare", other
    elif isinstance(node, ast.BinOp) and type(node.op) in _SUMS:
        yield "arithmetic", ast.BinOp(node.left, _SUMS[type(node.op)](), node.right)
    elif isinstance(node, ast.AugAssign) and type(node.op) in _SUMS:
        yield "arithmetic", ast.AugAssign(node.target, _SUMS[type(node.op)](), node.value)
    elif isinstance(node, ast.BoolOp):
        flipped = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and-or", ast.BoolOp(flipped, node.values)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not", node.operand
    elif isinstance(node, ast.If | ast.While):
        other_test = copy.copy(node)
        other_test.test = ast.UnaryOp(ast.Not(), node.test)
        yield "condition", other_test
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield "constant", ast.Constant(not node.value)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "dropped call", ast.Pass()
    elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
        yield "dropped assignment", ast.Pass()
    elif isinstance(node, ast.Delete):
        yield "dropped del", ast.Pass()


class _Swap(ast.NodeTransformer):
    def __init__(self, number: int, choice: int) -> None:
        self._number, self._choice, self._seen = number, choice, -1

    def visit(self, node: ast.AST) -> ast.AST:
        if isinstance(node, ast.JoinedStr):
            return node
        changes = list(_changes(node))
        if changes:
            self._seen += 1
            if self._seen == self._number:
                return ast.copy_location(changes[self._choice][1], node)
        return super().generic_visit(node)


@dataclass(frozen=True)
class Site:
    """A place where a module can be changed: the `number`-th node that can, and how."""

    module: str
    number: int
    choice: int
    kind: str
    line: int

    def mutant(self) -> Mutant:
        """Of the core."""
        return self.mutant_of(read(self.module))

    def mutant_of(self, source: str) -> Mutant:
        """The change made to the module's source."""
        tree = _Swap(self.number, self.choice).visit(parse(source))
        text = source.splitlines()[self.line - 1].strip()
        name = f"{self.module}:{self.line}#{self.number} {self.kind}"
        mutated = ast.unparse(ast.fix_missing_locations(tree))
        return Mutant(name, self.module, mutated, f"{self.kind} in `{text}`")


def sites_in(module: str, source: str) -> list[Site]:
    """Texts of messages and decorators are never touched, nor are loops inverted."""
    found: list[Site] = []
    lines = source.splitlines()
    nodes = [n for n in _in_order(parse(source)) if any(_changes(n))]
    for number, node in enumerate(nodes):
        line = getattr(node, "lineno", 0)
        if not isinstance(node, ast.While) and not lines[line - 1].lstrip().startswith("@"):
            found += [
                Site(module, number, i, kind, line) for i, (kind, _) in enumerate(_changes(node))
            ]
    return found


def _in_order(tree: ast.AST) -> Iterator[ast.AST]:
    """As `_Swap` visits."""
    yield tree
    if not isinstance(tree, ast.JoinedStr):
        for child in ast.iter_child_nodes(tree):
            yield from _in_order(child)


def every() -> list[Site]:
    """All places, in order."""
    return [site for module in modules() for site in sites_in(module, read(module))]


def draw(seed: int, count: int) -> list[Mutant]:
    """Lines drawn by a seed: the same for the same sources."""
    return [site.mutant() for site in random.Random(seed).sample(every(), count)]
