"""vLLM's AsyncLLM as a `batcher` engine: it runs by itself, and `poll` takes what has come."""

from __future__ import annotations

from typing import Any

from llmos.abi.inference import Sampling
from llmos.drivers.batcher.engine import Row
from llmos.drivers.sampling.params import GREEDY_BELOW
from llmos.drivers.vllm.line import Line
from llmos.errors import EngineFailed, InvalidRequest


class VLLMEngine:
    """Over an open line. Not thread-safe."""

    def __init__(self, line: Line, ends: frozenset[int]) -> None:
        self._line = line
        self._ends = ends
        self._rows: dict[str, Row] = {}
        self._keys: dict[Row, str] = {}
        self._num_added = 0

    @property
    def fd(self) -> int:
        return self._line.fd

    def check(self, sampling: Sampling, num_new: int) -> None:
        to_params(sampling, num_new, 0, [])

    def add(self, row: Row) -> None:
        from vllm.inputs.engine import tokens_input

        self._num_added += 1
        key = f"{row.request_id}-{self._num_added}"  # it may have been here, and news be on the way
        self._rows[key], self._keys[row] = row, key
        sampling = row.item.sampling
        ends = [] if sampling.ignore_eos else sorted(self._ends)
        params = to_params(sampling, row.num_left, row.next_seed, ends)
        prompt = tokens_input(row.known, cache_salt=row.item.cache_salt or None)
        self._line.send(key, prompt, params)

    def drop(self, row: Row) -> None:
        if key := self._keys.pop(row, None):
            del self._rows[key]
            self._line.cancel(key)

    def poll(self) -> None:
        for news in self._line.take():
            row = self._rows.get(news.key)
            if row is None:
                continue
            row.unsaid.extend(news.token_ids)
            if news.error:
                row.error = EngineFailed(f"vLLM: {news.error}")
            if news.is_last:
                del self._rows[news.key], self._keys[row]
        if self._line.why_dead:
            raise EngineFailed(f"vLLM has ended: {self._line.why_dead}")

    def has_work(self) -> bool:
        return self._line.has_news() or bool(self._line.why_dead)

    def is_well(self) -> bool:
        return self._line.is_well

    def close(self) -> None:
        self._rows.clear()
        self._keys.clear()
        self._line.close()


def to_params(sampling: Sampling, num_new: int, seed: int, ends: list[int]) -> Any:
    """How tokens are drawn, in vLLM's words. It stops where the answer is known to end, or it
    would run on until it is told. Raises InvalidRequest."""
    from vllm import SamplingParams
    from vllm.exceptions import VLLMError
    from vllm.sampling_params import RequestOutputKind

    is_greedy = sampling.temperature < GREEDY_BELOW
    drawn: dict[str, Any] = {"temperature": 0.0}
    if not is_greedy:
        drawn = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "seed": seed,
        }
    try:
        return SamplingParams(
            **drawn,
            frequency_penalty=sampling.frequency_penalty,
            presence_penalty=sampling.presence_penalty,
            repetition_penalty=sampling.repetition_penalty,
            logit_bias=dict(sampling.logit_bias) or None,
            max_tokens=num_new,
            stop_token_ids=[*ends, *sampling.stop_token_ids],
            ignore_eos=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
        )
    except (VLLMError, ValueError) as error:
        param = getattr(error, "parameter", None) or "sampling"
        raise InvalidRequest(f"vLLM: {str(error)[:400]}", param=param) from error
