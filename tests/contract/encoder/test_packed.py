"""Packed products: the numbers of plain ones, whatever shares a matrix with them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from llmos.drivers.encoder import packed
from llmos.drivers.encoder.kinds import Head


class Tied(nn.Module):
    """A head that is the embedding, another with a bias, and a list of both kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(600, 48)
        self.head = nn.Linear(48, 600, bias=False)
        self.head.weight = self.words.weight
        self.inner = nn.ModuleList([nn.Linear(48, 48), nn.GELU(), nn.Linear(48, 48)])

    def forward(self, ids_BL: torch.Tensor) -> torch.Tensor:
        hidden = self.words(ids_BL)
        for one in self.inner:
            hidden = one(hidden)
        made: torch.Tensor = self.head(hidden)
        return made


@pytest.mark.parametrize("shape", [(1, 1), (1, 17), (5, 3), (3, 64), (64, 1)])
def test_the_numbers_are_those_of_plain_products(shape: tuple[int, int]) -> None:
    torch.manual_seed(2)
    model = Tied().eval()
    ids_BL = torch.randint(0, 600, shape)
    with torch.inference_mode():
        plain, words = model(ids_BL), model.words(ids_BL)
        packed.pack(model, Head.SEQUENCE)
        assert isinstance(model.head, packed.PackedLinear)
        assert isinstance(model.inner[0], packed.PackedLinear)
        assert torch.allclose(model(ids_BL), plain, rtol=1e-4, atol=1e-5)
        assert torch.equal(model.words(ids_BL), words)


@pytest.mark.parametrize(
    ("head", "dtype"), [(Head.CTC, torch.float32), (Head.SEQUENCE, torch.bfloat16)]
)
def test_others_stay_as_they_are(head: Head, dtype: torch.dtype) -> None:
    model = Tied().to(dtype)
    packed.pack(model, head)
    assert isinstance(model.head, nn.Linear)


def test_a_torch_without_it_computes_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(packed.PackedLinear, "forward", fail)
    model = Tied()
    packed.pack(model, Head.SEQUENCE)
    assert isinstance(model.head, nn.Linear)
