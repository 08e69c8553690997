"""The `llmos` command. Registers every command and turns what they raise into lines and codes."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer
import typer.main

from llmos import __version__
from llmos.cli import (
    backup,
    configure,
    debug,
    disk,
    evals,
    files,
    infer,
    jobs,
    keys,
    library,
    models,
    pipelines,
    processes,
    run,
    runs,
    serve,
    sim,
    story,
    system,
    tasks,
    top,
    train,
)
from llmos.cli.options import examples

app = typer.Typer(
    name="llmos",
    help="An operating system for language models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    epilog=examples("llmos serve", 'llmos run pilot "What can you do?"', "llmos status --json"),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"llmos {__version__}\n")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """An operating system for language models."""


_COMMANDS = (
    (serve.serve, ("llmos serve", "llmos serve --port 9000 --preload pilot")),
    (
        run.run,
        (
            "llmos run pilot",
            "llmos run qwen3-0.6b",
            'llmos run pilot "What is a kernel?" --temperature 0',
            'git diff | llmos run pilot "Describe this change"',
        ),
    ),
    (
        infer.infer,
        (
            'llmos infer sentiment "What a film!"',
            "llmos infer my-whisper --audio speech.wav",
            'llmos infer my-voice "Good morning." -o morning.wav',
        ),
    ),
    (
        models.pull,
        (
            "llmos pull qwen3-0.6b",
            "llmos pull hf:org/name",
            "llmos pull ./my-model --name mine",
            "llmos pull file:/m --json",
        ),
    ),
    (models.ls, ("llmos ls", "llmos ls --json")),
    (models.show, ("llmos show pilot", "llmos show pilot:1 --json")),
    (
        models.quantize,
        ("llmos quantize mine --to int8", "llmos quantize mine:2 --to int4 --as mine-small"),
    ),
    (models.rm, ("llmos rm pilot:1", "llmos rm pilot:1 --yes")),
    (
        models.promote,
        (
            "llmos promote mine:3",
            "llmos promote mine:3 staging",
            "llmos promote mine staging --off",
        ),
    ),
    (
        models.load,
        (
            "llmos load pilot",
            "llmos load pilot --keep-alive 2h",
            "llmos load pilot --dtype int8",
            "llmos load pilot --draft pilot-int4",
        ),
    ),
    (models.pin, ("llmos pin pilot", "llmos pin pilot --off")),
    (models.unload, ("llmos unload pilot",)),
    (
        train.train,
        (
            "llmos train --name sentiment --train train.csv --validation val.csv --test test.csv",
            "llmos train recipe.yaml --set training.epochs=5",
            "llmos train --help-recipe",
        ),
    ),
    (processes.ps, ("llmos ps", "llmos ps --all --model pilot", "llmos ps --memory --wide")),
    (top.top, ("llmos top", "llmos top --once", "llmos top --json --interval 5")),
    (
        processes.nice,
        ("llmos nice 7f3a9c01 10", "llmos nice 7f3a9c01 -5", "llmos nice 7f3a9c01 --class batch"),
    ),
    (processes.kill, ("llmos kill 7f3a9c01", "llmos kill req_0193a 7f3a9c01")),
    (processes.suspend, ("llmos suspend 7f3a9c01",)),
    (processes.resume, ("llmos resume 7f3a9c01",)),
    (processes.wait, ("llmos wait 7f3a9c01", "llmos wait 7f3a9c01 --timeout 10")),
    (
        story.logs,
        (
            "llmos logs -f",
            "llmos logs -n 100 --level warning",
            "llmos logs 7f3a9c01",
            "llmos logs 7f3a9c01 --follow",
        ),
    ),
    (story.why, ("llmos why 7f3a9c01", "llmos why 7f3a9c01 --json")),
    (
        sim.sim,
        (
            "llmos sim --rate 8 --limit 2000 --tenants 10,1,1,1",
            "llmos sim --trace trace.csv --policy fair --replicas 4 --plot out.svg",
        ),
    ),
    (backup.backup, ("llmos backup ~/llmos-backup", "llmos backup /media/disk/llmos --json")),
    (
        backup.restore,
        ("llmos restore ~/llmos-backup", "llmos restore ~/llmos-backup --home ~/.llmos --force"),
    ),
    (disk.disk, ("llmos disk", "llmos disk --json")),
    (disk.gc, ("llmos gc",)),
    (system.status, ("llmos status", "llmos status --json")),
    (system.stop, ("llmos stop",)),
    (system.version, ("llmos version", "llmos version --json")),
)
_NUMBERS = {"ignore_unknown_options": True}  # `nice ID -5`: a number, not an option
for _command, _examples in _COMMANDS:
    _context = _NUMBERS if _command is processes.nice else None
    app.command(epilog=examples(*_examples), context_settings=_context)(_command)
app.add_typer(jobs.app, name="job")
app.add_typer(tasks.app, name="task")
app.add_typer(runs.app, name="runs")
app.add_typer(evals.app, name="eval")
app.add_typer(pipelines.app, name="pipeline")
app.add_typer(library.app, name="models")
app.add_typer(files.app, name="file")
app.add_typer(keys.app, name="key")
app.add_typer(configure.app, name="config")
app.add_typer(debug.app, name="debug")


@functools.cache
def _tree() -> Callable[..., object]:
    """The commands as Typer reads them: a third of the start-up time, so never twice."""
    return typer.main.get_command(app)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line (the process's own by default); the exit code is the value."""
    args = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal of another encoding must not end us
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _tree()(args=args, prog_name="llmos", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _leave_pipe()
    except SystemExit as leave:
        return leave.code if isinstance(leave.code, int) else 1
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the edge of the process
        from llmos.cli.failure import report

        return report(error, as_json)
    return code if isinstance(code, int) else 0


def _leave_pipe() -> int:
    """Whoever read us has left: say nothing, also not when the interpreter flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


if __name__ == "__main__":
    sys.exit(main())
