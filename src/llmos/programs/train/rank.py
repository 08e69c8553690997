"""`python -m llmos.programs.train.rank FILE`: one of a run's other processes.

It learns as the first does and says nothing: not to the job, not to the server.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path

import msgspec

from llmos.abi.program import Yielded
from llmos.errors import LLMOSError
from llmos.parent import die_with_parent
from llmos.programs.train.libraries import be_quiet, import_all
from llmos.programs.train.post import LOST, MuteContext, Post


def main() -> int:
    """0 when it learned as long as the first wanted; an error that is one of ours lies in
    `error.json` beside FILE."""
    file = Path(sys.argv[1])
    post = msgspec.json.decode(file.read_bytes(), type=Post)
    die_with_parent(post.parent_pid)
    be_quiet()
    from llmos.programs.train.joining import is_lost, joined
    from llmos.programs.train.program import learn

    import_all()
    try:
        with joined(post.rank, post.size, post.threads, Path(post.meeting)) as ranks:
            learn(MuteContext(post), ranks)
    except Yielded:
        return 0
    except LLMOSError as error:
        file.with_name("error.json").write_bytes(msgspec.json.encode(error.to_info()))
        return 1
    except RuntimeError as error:
        if is_lost(error):
            return LOST
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
