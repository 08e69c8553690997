"""`abi.Driver` and `abi.Waking` over vLLM."""

from __future__ import annotations

from llmos.abi.driver import Capabilities
from llmos.drivers.batcher.driver import BatcherDriver
from llmos.drivers.vllm.engine import VLLMEngine
from llmos.drivers.vllm.opening import open_vllm

_CAPABILITIES = Capabilities(
    driver="vllm", kinds=["generate"], formats=["safetensors"], features=["logit_bias"]
)


class VLLMDriver(BatcherDriver):
    """See `BatcherDriver`. vLLM runs on by itself; `step` says what has come."""

    def __init__(self) -> None:
        super().__init__(_CAPABILITIES, open_vllm)

    def wake_fd(self) -> int:
        engine = self._open().engine
        assert isinstance(engine, VLLMEngine)
        return engine.fd
