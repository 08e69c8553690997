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
    """Decides from facts alone, and from what is installed."""

    def __call__(self, facts: ModelFacts, driver: str | None = None, /) -> DriverChoice:
        """`driver`: the one that is wanted; None: the best. Raises ModelRejected, naming the
        architecture, when it does not serve it, or none does; PluginError when one that does is not
        installed; InvalidRequest for a driver that there is not."""
        ...
