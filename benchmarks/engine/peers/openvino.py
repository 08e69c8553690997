"""OpenVINO GenAI's continuous batching, exported by optimum-intel; weights fp16, int8 or int4."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine.peers.protocol import Request, Run, Setup, drive, serve

KV_GIB = 2
MAX_BATCHED_TOKENS = 2048


class OpenVino:
    """Steps of a ContinuousBatchingPipeline."""

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline
        self._open: dict[int, Any] = {}
        self._left: dict[int, int] = {}
        self._next_id = 0

    def add(self, index: int, request: Request) -> None:
        import numpy as np
        import openvino as ov
        import openvino_genai as genai

        config = genai.GenerationConfig()
        config.max_new_tokens = request.num_new
        config.min_new_tokens = request.num_new
        config.ignore_eos = True
        config.do_sample = False
        config.eos_token_id = 0
        ids = ov.Tensor(np.array([request.prompt], dtype=np.int64))
        self._open[index] = self._pipeline.add_request(self._next_id, ids, config)
        self._left[index] = request.num_new
        self._next_id += 1

    def step(self) -> list[tuple[int, int]]:
        self._pipeline.step()
        got = []
        for index, handle in list(self._open.items()):
            count = 0
            while handle.can_read():
                count += sum(len(output.generated_ids) for output in handle.read().values())
            if count:
                got.append((index, count))
                self._left[index] -= count
                if not self._left[index]:
                    del self._open[index]
        return got


def export(setup: Setup) -> Path:
    """The model in OpenVINO's form, made once."""
    target = Path(setup.cache) / f"openvino-{setup.precision}"
    if not (target / "openvino_model.xml").exists():
        from optimum.intel import OVModelForCausalLM, OVWeightQuantizationConfig

        chosen: dict[str, Any] = {"load_in_8bit": False}
        if setup.precision == "int8":
            chosen = {"quantization_config": OVWeightQuantizationConfig(bits=8)}
        elif setup.precision == "int4":
            config = OVWeightQuantizationConfig(bits=4, sym=True, group_size=64, ratio=1.0)
            chosen = {"quantization_config": config}
        scratch = target.with_name(target.name + "-made")
        shutil.rmtree(scratch, ignore_errors=True)
        model = OVModelForCausalLM.from_pretrained(
            setup.model, export=True, compile=False, **chosen
        )
        if setup.precision == "bf16":
            model.half()
        model.save_pretrained(scratch)
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copyfile(Path(setup.model) / name, scratch / name)
        _convert_tokenizer(scratch)
        scratch.rename(target)
    return target


def _convert_tokenizer(folder: Path) -> None:
    """The pipeline will not load without one, though it is only given token ids."""
    import openvino as ov
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    encode, decode = convert_tokenizer(tokenizer, with_detokenizer=True)
    ov.save_model(encode, folder / "openvino_tokenizer.xml")
    ov.save_model(decode, folder / "openvino_detokenizer.xml")


def load(setup: Setup) -> tuple[Run, dict[str, Any]]:
    """Export if need be, compile, hand over."""
    import openvino_genai as genai

    folder = export(setup)
    scheduler = genai.SchedulerConfig()
    scheduler.cache_size = KV_GIB
    scheduler.max_num_seqs = setup.num_slots
    scheduler.max_num_batched_tokens = MAX_BATCHED_TOKENS
    properties = {"INFERENCE_NUM_THREADS": setup.num_threads, "PERFORMANCE_HINT": "LATENCY"}
    pipeline = genai.ContinuousBatchingPipeline(str(folder), scheduler, "CPU", properties)
    version = genai.__version__.split("-")[0]
    return lambda requests: drive(OpenVino(pipeline), requests), {"version": version}


if __name__ == "__main__":
    sys.exit(serve(load))
