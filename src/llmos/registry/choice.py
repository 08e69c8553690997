"""How the registry asks which driver serves a model, without knowing any."""

from __future__ import annotations

from typing import Protocol

from llmos.weights import ModelFacts


class DriverChoice(Protocol):
    """A driver's name, the entry string of its Preparer, what the model can be asked for, and why
    it was chosen."""

    @property
    def driver(self) -> str: ...

    @property
    def prepare(self) -> str: ...

    @property
    def kinds(self) -> list[str]: ...

    @property
    def reason(self) -> str: ...


class ChooseDriver(Protocol):
    """Decides from facts alone."""

    def __call__(self, facts: ModelFacts, /) -> DriverChoice:
        """Raises ModelRejected, naming the architecture, when no driver serves it."""
        ...
