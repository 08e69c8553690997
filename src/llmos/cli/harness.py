"""lm-evaluation-harness against our own API: its tasks, its numbers, our models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

BOOTSTRAPS = 1000


def run_harness(
    model: str,
    tasks: Sequence[str],
    *,
    include: Path | None,
    chat: bool,
    tokenizer: str | None,
    limit: int | None,
    shots: int | None,
    concurrent: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Prints a table, or JSON. Raises PluginError without the extra, InvalidRequest for tasks that
    are not there, ModelNotFound."""
    from llmos.cli.output import emit_json, emit_table
    from llmos.cli.session import connect

    evaluate, manager = _load(tasks, include)
    if include is not None:
        _keep_offline()
    with connect() as client:
        version = client.models.show(model)
    base, key = _address()
    args: dict[str, Any] = {
        "model": version.ref,
        "base_url": f"{base}/v1/{'chat/completions' if chat else 'completions'}",
        "num_concurrent": concurrent,
        "tokenizer": None if chat else tokenizer or version.folder,
        "tokenizer_backend": "none" if chat else "huggingface",
        "tokenized_requests": not chat,
        "max_length": version.context_length,
        "header": {"Authorization": f"Bearer {key}"},
    }
    found = evaluate(
        model="local-chat-completions" if chat else "local-completions",
        model_args=args,
        tasks=list(tasks),
        task_manager=manager,
        limit=limit,
        num_fewshot=shots,
        apply_chat_template=chat,
        bootstrap_iters=BOOTSTRAPS,
    )
    results = {task: _figures(row) for task, row in found["results"].items()}
    if out is not None:
        _write(out, found)
    if as_json:
        emit_json({"model": version.ref, "results": results})
        return
    rows = [
        (task, name, f"{value:.4f}" if isinstance(value, float) else str(value))
        for task, row in results.items()
        for name, value in row.items()
    ]
    emit_table(("TASK", "METRIC", "VALUE"), rows, "no results")


def _load(tasks: Sequence[str], include: Path | None) -> tuple[Any, Any]:
    """`simple_evaluate`, and what knows the tasks. Raises PluginError, InvalidRequest."""
    from llmos.errors import InvalidRequest, PluginError

    if include is not None and not include.is_dir():
        raise InvalidRequest(f"{include} is no folder", param="include")
    if not tasks:
        raise InvalidRequest("name a task", param="tasks")
    try:
        from lm_eval.evaluator import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        text = f"the harness needs an extra: pip install 'llmos[harness]' ({error.name})"
        raise PluginError(text) from None
    path = None if include is None else str(include)
    manager = TaskManager(include_path=path, include_defaults=include is None)
    if include is not None and any(task not in manager.all_tasks for task in tasks):
        manager = TaskManager(include_path=path)  # thousands of files: not unless they are wanted
    for task in tasks:
        if task not in manager.all_tasks:
            raise InvalidRequest(f"lm-evaluation-harness has no task {task[:64]!r}", param="tasks")
    return simple_evaluate, manager


def _address() -> tuple[str, str]:
    """Where the server is for a client that speaks HTTP alone, and a key. Raises
    ServerUnreachable."""
    from llmos.errors import ServerUnreachable
    from llmos.sdk.locate import find_server_file, locate

    endpoint = locate()
    url = endpoint.url
    if endpoint.socket is not None:
        server = find_server_file(endpoint.home) if endpoint.home else None
        if server is None:
            raise ServerUnreachable("the server has no address but its socket")
        url = server.url.rstrip("/")
    return url, endpoint.api_key or ""


def _keep_offline() -> None:
    """Nothing is fetched from now on, whatever a task names."""
    import datasets.config
    import huggingface_hub.constants

    modules: list[Any] = [datasets.config, huggingface_hub.constants]
    for module in modules:
        module.HF_HUB_OFFLINE = True
    datasets.config.HF_DATASETS_OFFLINE = True


def _figures(row: dict[str, Any]) -> dict[str, Any]:
    """`acc,none` is `acc`; what is no figure is left out."""
    return {
        name.removesuffix(",none"): value
        for name, value in row.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _write(out: Path, found: dict[str, Any]) -> None:
    import json

    kept = {name: found.get(name) for name in ("results", "configs", "versions", "n-samples")}
    kept["samples"] = found.get("samples")
    out.write_text(json.dumps(kept, ensure_ascii=False, indent=2, default=str) + "\n", "utf-8")
