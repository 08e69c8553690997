"""Items per second through the server at concurrency 64, beside Transformers in process.

The peer is `pipeline` with the batch size and the number of threads that suit it best (all are
tried first), over the same texts in the same order, in a process of its own; for T5, whose pipeline
Transformers 5 dropped, `generate` in batches. Ours is `llmos serve` over HTTP: 64 connections of
one text per request, and requests of 32 texts. Both have all cores, and each computes with one
thread or with one for each core, whichever suits it (tried first); beside ours, the server's other
processes and the load client have to find their time. Each repetition measures both. Weights are
random, texts are film reviews of LLMOS_TEST_DATA, or made of syllables where that is absent.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.models import sentences
from benchmarks.serving import HOST, Server, serving

CONNECTIONS = 64
TEXTS_PER_REQUEST = 32
SIZES = (1, 8, 16, 32, 64)
"""Of batches, which the peer may choose from."""

NEW_TOKENS = 16


@dataclass(frozen=True)
class Case:
    """A model, what it is asked for, and how many texts a repetition has."""

    name: str
    architecture: str
    config: dict[str, Any]
    kind: str
    num_texts: int


CASES = [
    Case(
        "5 M encoder",
        "BertForSequenceClassification",
        {
            "vocab_size": 8192,
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 7,
            "num_attention_heads": 3,
            "num_labels": 2,
        },
        "text-classification",
        1024,
    ),
    Case(
        "110 M encoder",
        "BertForSequenceClassification",
        {"vocab_size": 30522, "num_labels": 2},
        "text-classification",
        128,
    ),
    Case(
        "T5 of 60 M",
        "T5ForConditionalGeneration",
        {
            "vocab_size": 32128,
            "d_model": 512,
            "d_kv": 64,
            "d_ff": 2048,
            "num_layers": 6,
            "num_heads": 8,
            "decoder_start_token_id": 0,
            "eos_token_id": 1,
        },
        "summarization",
        128,
    ),
]


def num_cores() -> int:
    """That this machine lends to us."""
    return len(os.sched_getaffinity(0))


def make_folder(case: Case, folder: Path) -> Path:
    """Random weights in the real shape, and a tokenizer."""
    import torch
    import transformers

    cls = getattr(transformers, case.architecture)
    torch.manual_seed(1)
    model = cls(cls.config_class(**case.config))
    model.save_pretrained(folder)
    _write_tokenizer(folder)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": 512,
        "pad_token": "[PAD]",
        "model_input_names": ["input_ids", "attention_mask"],
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def _write_tokenizer(folder: Path) -> None:
    """BERT's kind, trained on the texts that are asked about."""
    from tokenizers import BertWordPieceTokenizer
    from tokenizers.processors import TemplateProcessing

    trained = BertWordPieceTokenizer()
    trained.train_from_iterator(read_texts(4000), vocab_size=8000, show_progress=False)
    marks = ("[CLS]", "[SEP]")
    trained.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(m, trained.token_to_id(m)) for m in marks]
    )
    trained.save(str(folder / "tokenizer.json"))


def read_texts(count: int) -> list[str]:
    """Real ones where there are any."""
    root = Path(os.environ.get("LLMOS_TEST_DATA", "../shared/data"))
    path = root / "classify" / "rt-polarity.pos"
    is_there = path.is_file()
    lines = path.read_text(encoding="latin-1").splitlines() if is_there else [*sentences()]
    return random.Random(3).choices(lines, k=count)


# the peer: `python -m benchmarks.bench_encoders --peer FOLDER`, one run per line of its input


def run_peer(folder: str) -> None:
    """Answers each line `{kind, texts, batch_size, threads}` with the seconds that took."""
    import torch
    import transformers

    transformers.utils.logging.set_verbosity_error()
    run = None
    for line in sys.stdin:
        asked = json.loads(line)
        run = run or _peer_of(folder, asked["kind"])
        torch.set_num_threads(asked["threads"])
        began = time.perf_counter()
        run(asked["texts"], asked["batch_size"])
        print(time.perf_counter() - began, flush=True)


def _peer_of(folder: str, kind: str) -> Any:
    import torch
    import transformers

    if kind == "text-classification":
        pipe = transformers.pipeline(kind, folder)
        return lambda texts, size: pipe(texts, batch_size=size, truncation=True)
    model = transformers.T5ForConditionalGeneration.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def write(texts: list[str], size: int) -> None:
        for at in range(0, len(texts), size):
            inputs = tokenizer(texts[at : at + size], return_tensors="pt", padding=True)
            with torch.inference_mode():
                model.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS)

    return write


class Peer:
    """The process of one model's peer."""

    def __init__(self, case: Case, folder: Path) -> None:
        self._case = case
        command = [sys.executable, "-m", "benchmarks.bench_encoders", "--peer", str(folder)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},  # as our worker has it
        )

    def texts_per_s(self, texts: list[str], setting: tuple[int, int]) -> float:
        size, threads = setting
        body = {"kind": self._case.kind, "texts": texts, "batch_size": size, "threads": threads}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(body), file=self._process.stdin, flush=True)
        return len(texts) / float(self._process.stdout.readline())

    def best_setting(self, texts: list[str]) -> tuple[int, int]:
        self.texts_per_s(texts[:8], (8, 1))
        settings = [(size, threads) for threads in {1, num_cores()} for size in SIZES]
        return max(settings, key=lambda setting: self.texts_per_s(texts, setting))

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(30)


# ours


def split(texts: Sequence[str], size: int) -> Iterator[list[str]]:
    for at in range(0, len(texts), size):
        yield list(texts[at : at + size])


async def _post(
    server: Server, queue: list[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    while queue:
        writer.write(queue.pop())
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        if not head.startswith(b"HTTP/1.1 200") or b'"error"' in body:
            raise RuntimeError(body[:500].decode())
    writer.close()


async def _run(server: Server, requests: list[bytes]) -> float:
    queue = requests[::-1]
    count = min(CONNECTIONS, len(queue))
    open_ = [await asyncio.open_connection(HOST, server.port) for _ in range(count)]
    began = time.perf_counter()
    await asyncio.gather(*(_post(server, queue, *streams) for streams in open_))
    return time.perf_counter() - began


def ours_per_s(server: Server, case: Case, texts: list[str], size: int) -> float:
    """With so many texts to a request, up to 64 requests at once."""
    params = {"max_new_tokens": NEW_TOKENS} if case.kind == "summarization" else {}
    name = case.name.split()[0].lower()
    requests = [
        server.request(
            {"model": f"bench-{name}", "kind": case.kind, "inputs": part, "params": params},
            "/os/v1/infer",
        )
        for part in split(texts, size)
    ]
    return len(texts) / asyncio.run(_run(server, requests))


@contextlib.contextmanager
def serving_one(case: Case, folder: Path, threads: int) -> Iterator[Server]:
    """A server that has the model loaded, with so many threads to compute with."""
    name = case.name.split()[0].lower()
    with serving("--set", f"kernel.num_threads={threads}") as (server, _):
        pull = [sys.executable, "-m", "llmos.cli.main", "pull", f"file:{folder}"]
        env = {**os.environ, "LLMOS_HOME": str(server.home)}
        subprocess.run([*pull, "--name", f"bench-{name}"], check=True, env=env)
        ours_per_s(server, case, read_texts(64), 1)
        yield server


def best_threads(case: Case, folder: Path, texts: list[str]) -> int:
    """Of ours, as the peer chooses its own."""
    found: dict[int, float] = {}
    for threads in sorted({1, num_cores()}):
        with serving_one(case, folder, threads) as server:
            found[threads] = ours_per_s(server, case, texts, 1)
    return max(found, key=lambda threads: found[threads])


def measure(result: harness.Result, case: Case, repeats: int, wished: int) -> None:
    texts = read_texts(case.num_texts)
    few = texts[: max(64, case.num_texts // 4)]
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as scratch:
        folder = make_folder(case, Path(scratch) / "model")
        threads = wished or best_threads(case, folder, few)
        peer = Peer(case, folder)
        try:
            best = peer.best_setting(few)
            runs: dict[str, list[float]] = {"one": [], "many": [], "peer": []}
            with serving_one(case, folder, threads) as server:
                for _ in range(repeats):
                    runs["one"].append(ours_per_s(server, case, texts, 1))
                    runs["peer"].append(peer.texts_per_s(texts, best))
                    runs["many"].append(ours_per_s(server, case, texts, TEXTS_PER_REQUEST))
        finally:
            peer.stop()
    what = f"in process, batches of {best[0]}, {best[1]} threads"
    ours = f"{threads} threads"
    result.add(
        harness.paired(
            f"{case.name}: 64 connections, 1 text each, {ours}",
            "texts/s",
            runs["one"],
            what,
            runs["peer"],
        )
    )
    result.add(
        harness.paired(
            f"{case.name}: requests of {TEXTS_PER_REQUEST} texts, {ours}",
            "texts/s",
            runs["many"],
            what,
            runs["peer"],
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--texts", type=float, default=1.0, help="part of each model's texts")
    parser.add_argument("--threads", type=int, default=0, help="of our workers; 0: the best")
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        run_peer(arguments.peer)
        return
    result = harness.Result("encoders", harness.command("encoders"))
    for case in CASES:
        count = max(64, int(case.num_texts * arguments.texts))
        few = Case(case.name, case.architecture, case.config, case.kind, count)
        measure(result, few, arguments.repeats, arguments.threads)
    result.write()


if __name__ == "__main__":
    main()
