"""Every bound of the command line. A plain struct: pydantic would double the start-up time."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True)
class CLIConfig:
    """Seconds, bytes, lines.

    `start_timeout_s`: a server started in the background must answer by then. `rival_timeout_s`:
    how long to wait for another process that is starting the same home's server. `stop_timeout_s`:
    a server asked to stop drains its requests first. `poll_interval_s`: between two looks at
    either. `probe_timeout_s`: of one look. `log_tail_lines` are shown when a start fails.
    `max_stdin_bytes`: a prompt that comes through a pipe. `paste_gap_s`: lines that arrive faster
    than this after one another were pasted, not typed. `max_history_lines`: of the chat's history.
    `raw_max_tokens`: how far a text is continued when nobody says;
    `raw_spare_tokens` of the context are left for what a tokenizer adds.
    `follow_interval_s`: the longest a new line of `logs --follow` may take. `wait_step_s`: of one
    request of `wait`. `top_interval_s`: between two frames of `top`. `reconnect_s`: how long a
    followed log waits for a server that restarts, looking every `reconnect_interval_s`.
    `task_interval_s`: between two looks at a task. Of a folder that is a task's input, at most
    `max_folder_files` are read, each of at most `max_folder_file_bytes`.
    """

    start_timeout_s: float = 60.0
    rival_timeout_s: float = 15.0
    stop_timeout_s: float = 60.0
    poll_interval_s: float = 0.05
    probe_timeout_s: float = 5.0
    log_tail_lines: int = 20
    log_tail_bytes: int = 16 * 1024
    max_stdin_bytes: int = 16 * 1024 * 1024
    paste_gap_s: float = 0.02
    max_history_lines: int = 1000
    raw_max_tokens: int = 256
    raw_spare_tokens: int = 16
    follow_interval_s: float = 0.5
    wait_step_s: float = 30.0
    top_interval_s: float = 1.0
    reconnect_s: float = 60.0
    reconnect_interval_s: float = 0.5
    task_interval_s: float = 0.25
    max_folder_files: int = 100_000
    max_folder_file_bytes: int = 8 * 1024 * 1024


LIMITS = CLIConfig()
