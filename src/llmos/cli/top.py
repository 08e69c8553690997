"""`top`: a server's work as it goes on, on the whole screen."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmos.cli.config import LIMITS
from llmos.cli.options import Json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from llmos.cli.frame import Frame, Line, Meter
    from llmos.sdk import Client

STYLES = {"title": "bold reverse", "chosen": "reverse", "bad": "bold red"}
HELP = "q quit   up/down choose   k kill"


def top(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print one frame and end.")] = False,
    interval: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds between two frames.")
    ] = LIMITS.top_interval_s,
    json: Json = False,
) -> None:
    """Watch the server: speed, queues by class, rows, memory, processes.

    Into a pipe it prints one frame; with --json one object per frame until it is interrupted.
    """
    import sys

    from llmos.cli.frame import Meter
    from llmos.cli.session import connect
    from llmos.cli.system import address

    with connect() as client:
        meter, where = Meter(client), address(client.endpoint)
        if json:
            _stream(meter, interval, once=once)
        elif once or not sys.stdout.isatty():
            _print_frame(_second_look(meter, interval), where)
        else:
            _watch(client, meter, where, interval)


def _second_look(meter: Meter, interval_s: float) -> Frame:
    """Speed needs two looks."""
    meter.look()
    time.sleep(min(interval_s, LIMITS.follow_interval_s))
    return meter.look()


def _stream(meter: Meter, interval_s: float, *, once: bool) -> None:
    from llmos.cli.output import emit_json

    emit_json(_second_look(meter, interval_s).to_json())
    while not once:
        time.sleep(interval_s)
        emit_json(meter.look().to_json())


def _print_frame(frame: Frame, where: str) -> None:
    import shutil

    from llmos.cli.frame import lines
    from llmos.cli.output import emit

    for line in lines(frame, where, shutil.get_terminal_size((80, 24)).columns):
        emit(line.text.rstrip())


def _watch(client: Client, meter: Meter, where: str, interval_s: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from llmos.cli.keyboard import keyboard

    console = Console(highlight=False, markup=False, emoji=False)
    with keyboard() as read_key, Live(console=console, screen=True, auto_refresh=False) as live:
        screen = Screen(client)
        due_s = 0.0
        while not screen.is_done:
            if time.monotonic() >= due_s:
                screen.show(meter.look())
                due_s = time.monotonic() + interval_s
            live.update(_paint(screen, where, console), refresh=True)
            if key := read_key(due_s - time.monotonic()):
                screen.press(key)


class Screen:
    """What keys do. The chosen process stays chosen while others come and go."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._chosen_id: str | None = None
        self._condemned_id: str | None = None
        self.frame: Frame | None = None
        self.message = HELP
        self.is_done = False

    @property
    def chosen(self) -> int | None:
        """Its place among the frame's processes."""
        ids = self._ids()
        return ids.index(self._chosen_id) if self._chosen_id in ids else None

    def show(self, frame: Frame) -> None:
        """The newest frame."""
        self.frame = frame

    def press(self, key: str) -> None:
        """One key."""
        if self._condemned_id is not None:
            self._answer(key, self._condemned_id)
        elif key == "q":
            self.is_done = True
        elif key in {"up", "down"}:
            self._move(1 if key == "down" else -1)
        elif key == "k":
            self._ask()

    def _ids(self) -> list[str]:
        return [p.process_id for p in self.frame.processes] if self.frame else []

    def _move(self, step: int) -> None:
        ids, chosen = self._ids(), self.chosen
        if ids:
            place = 0 if chosen is None else min(max(chosen + step, 0), len(ids) - 1)
            self._chosen_id = ids[place]

    def _ask(self) -> None:
        if self.chosen is None:
            self.message = "choose a process with the arrows first"
            return
        self._condemned_id = self._chosen_id
        self.message = f"kill {self._condemned_id}? y/n"

    def _answer(self, key: str, process_id: str) -> None:
        from llmos.errors import LLMOSError

        self._condemned_id, self.message = None, HELP
        if key == "y":
            try:
                self.message = self._client.processes.kill(process_id).what
            except LLMOSError as error:  # it may have ended meanwhile: no reason to leave
                self.message = f"not killed: {error.message}"


def _paint(screen: Screen, where: str, console: Console) -> Text:
    from rich.text import Text

    from llmos.cli.frame import Line, lines

    width, height = console.size
    made: list[Line] = []
    if screen.frame is not None:
        made = lines(screen.frame, where, width, height - 1, screen.chosen)
    made += [Line("")] * (height - 1 - len(made))
    text = Text(no_wrap=True, overflow="crop", end="")
    for line in made:
        text.append(line.text + "\n", style=STYLES.get(line.look, ""))
    return text.append(_cut(screen.message, width), style="dim")


def _cut(message: str, width: int) -> str:
    from llmos.cli.text import fit

    return fit(message, width)
