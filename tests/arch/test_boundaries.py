"""`except Exception` lives only in listed boundary functions, where it becomes a typed error.

A handler that cleans up and raises again hides nothing and needs no place in the list.
"""

from __future__ import annotations

import ast

from tests.arch.source import Function, functions, modules

BROAD = {"Exception", "BaseException"}

BOUNDARIES = {
    # loops: one failure must not end the rest
    "llmos.kernel.loop.Loop._turn",
    "llmos.kernel.memory.MemoryWatch.run",
    "llmos.kernel.syscall.Gate._run",
    "llmos.kernel.workers.Workers._live",
    "llmos.tracking.tracker.Tracker._tell",
    "llmos.worker.__main__.main",
    "llmos.worker.tokenizer.TokenizerLoop._prepare",
    "llmos.worker.program.ProgramLoop._attempt",
    "llmos.worker.program.ProgramLoop._run_program",
    "llmos.api.call.Endpoint._answer",
    "llmos.telemetry.export.Exporter._drain",
    "llmos.telemetry.logs.LogFile.emit",
    "llmos.telemetry.scribe.answers",
    "llmos.cli.main.main",
    # errors of an engine or a library, mapped in one place each
    "llmos.drivers.text.folder.read_decoding",
    "llmos.drivers.text.prepare.FileTokenizer.__init__",
    "llmos.drivers.text.template.ChatTemplate.render",
    "llmos.drivers.openai.courier.Courier.carry",
    "llmos.drivers.onnx.session.mapped",
    "llmos.drivers.vllm.opening.open_vllm",
    "llmos.drivers.native.failures.mapped",
    "llmos.drivers.native.turns._Shared.run",
    "llmos.drivers.native.load.read_config",
    "llmos.drivers.native.load._read_model",
    "llmos.drivers.native.load._probe",
    "llmos.drivers.encoder.images.open_image",
    "llmos.drivers.encoder.texts.TextEncoder.__init__",
    "llmos.drivers.encoder.texts.TextEncoder._encode_all",
    "llmos.drivers.encoder.texts.TextEncoder._encode_one",
    "llmos.drivers.encoder.words.Words.__init__",
    "llmos.registry.hub._mapped",
    # carried over to where it is raised: another thread, a generator
    "llmos.registry.progress.run_stoppable.run",
    "llmos.storage.writer.Writer._attempt",
    "llmos.storage.writer.Writer._run_outside",
    "llmos.storage.writer.Writer._step",
    "llmos.sdk.transport.Transport.run_steps",
    "llmos.sdk.transport.AsyncTransport.run_steps",
}


def _own_handlers(function: Function) -> list[ast.ExceptHandler]:
    """Handlers of this function, not of functions inside it."""
    found, rest = [], list(ast.iter_child_nodes(function.node))
    while rest:
        node = rest.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.ExceptHandler):
            found.append(node)
        rest.extend(ast.iter_child_nodes(node))
    return found


def _is_broad(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    if handler.type is None:
        return True
    types = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(isinstance(t, ast.Name) and t.id in BROAD for t in types)


def _broad() -> set[str]:
    return {
        f"{f.module}.{f.qualname}"
        for m in modules()
        for f in functions(m)
        if any(_is_broad(h) for h in _own_handlers(f))
    }


def test_every_broad_handler_is_a_listed_boundary() -> None:
    assert _broad() - BOUNDARIES == set()


def test_every_listed_boundary_is_one() -> None:
    assert BOUNDARIES - _broad() == set()


def test_no_broad_handler_outside_a_function() -> None:
    inside = {id(h) for m in modules() for f in functions(m) for h in _own_handlers(f)}
    outside = [
        f"{m.name}:{node.lineno}"
        for m in modules()
        for node in ast.walk(m.tree)
        if isinstance(node, ast.ExceptHandler) and _is_broad(node) and id(node) not in inside
    ]
    assert not outside
