"""`status stop version`: the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.cli.options import Json

if TYPE_CHECKING:
    from llmos.abi.syscall import StatusInfo
    from llmos.sdk.locate import Endpoint


def status(json: Json = False) -> None:
    """Show whether the server is ready, and if not why."""
    from llmos.cli.output import emit, emit_json
    from llmos.cli.session import connect
    from llmos.cli.text import age, size
    from llmos.sdk.wire import to_wire

    with connect() as client:
        info = client.status()
        where = address(client.endpoint)
    if json:
        emit_json({"url": where, **to_wire(info)})
        return
    emit(f"{'ready' if info.ready else 'not ready'}  llmos {info.version} at {where}")
    for problem in info.problems:
        emit(f"problem: {problem}")
    emit(f"up {age(info.started_ns)}, epoch {info.epoch}")
    emit(f"{info.num_running} running, {info.num_queued} queued{_waiting(info)}")
    emit(
        f"memory: {size(info.memory_reserved_bytes)} reserved of a budget of "
        f"{size(info.memory_budget_bytes)}, {size(info.memory_total_bytes)} in all"
    )


def _waiting(info: StatusInfo) -> str:
    """Which classes wait for what, as far as an older server says."""
    by_class = ", ".join(f"{count} {name}" for name, count in sorted(info.waiting.items()))
    return (f" ({by_class})" if by_class else "") + (
        f", policy {info.policy}" if info.policy else ""
    )


def address(endpoint: Endpoint) -> str:
    """What other programs may be pointed at: the URL, also when we came by the socket."""
    from llmos.sdk.locate import find_server_file

    server = find_server_file(endpoint.home) if endpoint.home is not None else None
    return server.url if server is not None else endpoint.where


def stop(json: Json = False) -> None:
    """Stop this home's server.

    It takes nothing new, finishes what runs, and ends.
    """
    from llmos.cli.background import stop_server
    from llmos.cli.output import emit, emit_json
    from llmos.cli.progress import spinner
    from llmos.errors import ServerUnreachable
    from llmos.sdk.locate import find_home

    home = find_home()
    with spinner(f"stopping the server of {home}"):
        server = stop_server(home)
    if server is None:
        raise ServerUnreachable(f"no server runs for {home}")
    if json:
        emit_json({"stopped": {"pid": server.pid, "url": server.url}})
    else:
        emit(f"stopped (pid {server.pid})")


def version(json: Json = False) -> None:
    """Show the version of this command."""
    import platform
    import sys

    from llmos import __version__

    if json:
        from llmos.cli.output import emit_json

        emit_json({"version": __version__, "python": platform.python_version()})
    else:
        sys.stdout.write(f"llmos {__version__}\n")
