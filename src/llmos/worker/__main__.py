"""`python -m llmos.worker FD`: a worker, told everything else over the socket it inherits."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from llmos.abi import ABI_VERSION
from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.abi.driver import Driver
from llmos.errors import LLMOSError, ProtocolViolation
from llmos.ipc.blocking import BlockingChannel
from llmos.ipc.codec import worker_codec
from llmos.parent import die_with_parent
from llmos.worker.entry import load_entry
from llmos.worker.program import ProgramLoop
from llmos.worker.replica import ReplicaLoop, engine_error
from llmos.worker.tokenizer import TokenizerLoop


def _greet(channel: BlockingChannel) -> msg.Hello:
    while True:
        for message in channel.receive(None):
            if not isinstance(message, msg.Hello):
                raise ProtocolViolation(f"expected Hello, got {type(message).__name__}")
            if message.abi_version != ABI_VERSION:
                raise ProtocolViolation(
                    f"the kernel speaks ABI {message.abi_version}, this worker {ABI_VERSION}"
                )
            return message


def _serve(channel: BlockingChannel) -> None:
    hello = _greet(channel)
    if hello.role is msg.WorkerRole.TOKENIZER:
        channel.send(msg.Ready(ABI_VERSION, os.getpid(), None))
        TokenizerLoop(channel).run()
        return
    if hello.role is msg.WorkerRole.PROGRAM:
        channel.send(msg.Ready(ABI_VERSION, os.getpid(), None))
        ProgramLoop(channel, Path.cwd()).run()
        os._exit(0)  # whatever threads the program has left running
    driver: Driver = load_entry(hello.driver)()
    gc.freeze()  # what the engine's import made never becomes garbage: don't walk it each cycle
    channel.send(msg.Ready(ABI_VERSION, os.getpid(), driver.capabilities))
    ReplicaLoop(channel, driver).run()
    os._exit(0)  # whatever threads the engine has left running, compilers for one


def main() -> int:
    """0 after `Shutdown`, 1 when the kernel went away or something raised."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    fd, parent_pid = int(sys.argv[1]), int(sys.argv[2])
    die_with_parent(parent_pid)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which tells us
    channel = BlockingChannel(socket.socket(fileno=fd), worker_codec())
    try:
        _serve(channel)
    except ChannelClosed:
        return 1
    except Exception as error:  # last words: the kernel turns them into typed errors
        logging.exception("worker ends")
        last = error if isinstance(error, LLMOSError) else engine_error(error)
        channel.send(msg.Fatal(last.to_info()))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
