"""The loop of the tokenizer worker: prompts to tokens, away from the kernel's loop. No torch."""

from __future__ import annotations

from collections import OrderedDict

from llmos.abi import worker as msg
from llmos.abi.driver import Health, MemoryReport, Preparer
from llmos.abi.inference import PrepareItem
from llmos.errors import EngineFailed, LLMOSError, PayloadTooLarge, ProtocolViolation
from llmos.ipc.blocking import BlockingChannel
from llmos.worker.entry import load_entry

MAX_PREPARERS = 64
"""Tokenizers kept loaded; the least recently used one goes first."""


class TokenizerLoop:
    """Serves every model of the home; one preparer per (entry, folder)."""

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel
        self._preparers: OrderedDict[tuple[str, str], Preparer] = OrderedDict()

    def run(self) -> None:
        """Until `Shutdown`. Raises ChannelClosed when the kernel is gone."""
        while True:
            for message in self._channel.receive(None):
                if isinstance(message, msg.Prepare):
                    for item in message.items:
                        self._answer(item)
                elif isinstance(message, msg.Probe):
                    health = Health(True)
                    self._channel.send(msg.Report(message.nonce, health, MemoryReport(0)))
                elif isinstance(message, msg.Shutdown):
                    return

    def _answer(self, item: PrepareItem) -> None:
        """What no message holds is the failure of its prompt: the worker is everybody's."""
        try:
            self._channel.send(msg.PrepareResults([self._prepare(item)]))
        except ProtocolViolation as error:
            refusal = PayloadTooLarge(f"what is made of the prompt is too large: {error.message}")
            failure = msg.PrepareFailure(item.request_id, refusal.to_info())
            self._channel.send(msg.PrepareResults([failure]))

    def _prepare(self, item: PrepareItem) -> msg.PrepareSuccess | msg.PrepareFailure:
        try:
            return msg.PrepareSuccess(self._preparer(item).prepare(item))
        except LLMOSError as error:
            return msg.PrepareFailure(item.request_id, error.to_info())
        except Exception as error:  # noqa: BLE001 - a tokenizer library's own: it must not end the others' work
            failure = EngineFailed(f"the tokenizer failed: {type(error).__name__}: {error}")
            return msg.PrepareFailure(item.request_id, failure.to_info())

    def _preparer(self, item: PrepareItem) -> Preparer:
        key = (item.entry, item.folder)
        preparer = self._preparers.get(key)
        if preparer is None:
            preparer = load_entry(item.entry)(item.folder)
            self._preparers[key] = preparer
            if len(self._preparers) > MAX_PREPARERS:
                self._preparers.popitem(last=False)
        self._preparers.move_to_end(key)
        return preparer
