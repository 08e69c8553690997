"""What a request will cost, learned online from the ones that ended.

Per model: seconds per prompt token, seconds per answer token at a given load, and how long the
answers of a principal are. Everything is an exponential average, so that it follows the machine and
the users, and a prediction is a few multiplications.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from llmos.abi.principal import ServiceClass
from llmos.kernel.core.replica import ModelFacts

LEAST_SEEN = 8
"""Requests of a model that must have ended before its predictions may end another one."""

LEAST_SHARE = 0.25
"""The part of a predicted time that a request takes at least, for all that its length is unsure."""

MAX_PRINCIPALS = 4096
"""Whose answer lengths are remembered; the least recently seen one goes first."""


@dataclass(slots=True)
class Average:
    """An exponential average that begins with its first value."""

    value: float
    weight: float = 0.1
    num_seen: int = 0

    def add(self, value: float) -> None:
        """Early values count more, so that a bad first guess does not last."""
        self.num_seen += 1
        share = max(self.weight, 1.0 / self.num_seen)
        self.value += share * (value - self.value)


@dataclass(slots=True)
class Measured:
    """How one request really went. Times in ns; `load`: rows in use while it ran, 1 or more."""

    principal_id: str
    prompt_tokens: int
    output_tokens: int
    prefill_ns: int
    decode_ns: int
    load: int


@dataclass(slots=True)
class Prediction:
    """`service_ns` from dispatch to the end, `output_tokens` of them."""

    output_tokens: float
    service_ns: float


class CostModel:
    """Of one model version. `error` is the mean |predicted - actual| / actual of service times."""

    def __init__(self) -> None:
        self.fixed_ns = Average(2e6)
        self.prefill_ns = Average(1e6)
        self.alone_ns = Average(20e6)
        self.per_row_ns = Average(1e6)
        self.output = Average(128.0)
        self.error = Average(0.0)
        self._of_principal: OrderedDict[str, Average] = OrderedDict()

    def predict(
        self, principal_id: str, prompt_tokens: int, max_tokens: int, load: int
    ) -> Prediction:
        """`max_tokens` 0: no bound of its own. `load` as in `Measured`."""
        known = self._of_principal.get(principal_id, self.output)
        output = known.value if max_tokens <= 0 else min(known.value, float(max_tokens))
        prefill_ns = self.fixed_ns.value + self.prefill_ns.value * prompt_tokens
        return Prediction(output, prefill_ns + self.token_ns(load) * max(0.0, output - 1))

    def at_least_ns(self, prediction: Prediction) -> float:
        """What it is sure to take, as far as that may be relied on; 0 while little is known."""
        if self.output.num_seen < LEAST_SEEN:
            return 0.0
        return LEAST_SHARE * prediction.service_ns

    def token_ns(self, load: int) -> float:
        """Of one token of an answer, with `load` rows in use."""
        return self.alone_ns.value + self.per_row_ns.value * (load - 1)

    def learn(self, predicted: Prediction | None, measured: Measured) -> None:
        """From a request that ended by itself."""
        actual_ns = measured.prefill_ns + measured.decode_ns
        if predicted is not None and actual_ns > 0:
            self.error.add(abs(predicted.service_ns - actual_ns) / actual_ns)
        self._learn_length(measured.principal_id, measured.output_tokens)
        if measured.prompt_tokens > 0:
            over_ns = max(0.0, measured.prefill_ns - self.fixed_ns.value)
            if measured.prompt_tokens < 8:
                self.fixed_ns.add(measured.prefill_ns)
            else:
                self.prefill_ns.add(over_ns / measured.prompt_tokens)
        if measured.output_tokens > 1:
            self._learn_decode(measured)

    def _learn_length(self, principal_id: str, output_tokens: int) -> None:
        self.output.add(output_tokens)
        mine = self._of_principal.setdefault(principal_id, Average(self.output.value))
        mine.add(output_tokens)
        self._of_principal.move_to_end(principal_id)
        if len(self._of_principal) > MAX_PRINCIPALS:
            self._of_principal.popitem(last=False)

    def _learn_decode(self, measured: Measured) -> None:
        token_ns = measured.decode_ns / (measured.output_tokens - 1)
        if measured.load <= 1:
            self.alone_ns.add(token_ns)
        else:
            extra_ns = token_ns - self.alone_ns.value
            if self.alone_ns.num_seen == 0:  # never seen alone: assume half of it is fixed
                self.alone_ns.value = token_ns / 2
                extra_ns = token_ns / 2
            self.per_row_ns.add(max(0.0, extra_ns / (measured.load - 1)))


class LoadTimes:
    """How long models load: each as it did before, else by its size as others did."""

    def __init__(self, ns_per_byte: float = 1.0) -> None:
        self.ns_per_byte = Average(ns_per_byte)
        self._of_model: dict[str, Average] = {}

    def learn(self, model: ModelFacts, load_ns: int) -> None:
        """From one that came up."""
        self.ns_per_byte.add(load_ns / max(1, model.reserve_bytes))
        self._of_model.setdefault(model.model_id, Average(float(load_ns))).add(load_ns)

    def knows(self, model_id: str) -> bool:
        """It has loaded before."""
        return model_id in self._of_model

    def predict(self, model: ModelFacts) -> float:
        """In ns."""
        known = self._of_model.get(model.model_id)
        return known.value if known else self.ns_per_byte.value * model.reserve_bytes


@dataclass(slots=True)
class Work:
    """What waits of one class: predicted, and of those that have run, what is left."""

    num_requests: int = 0
    service_ns: float = 0.0
    tokens: int = 0


Fresh = dict[ServiceClass, OrderedDict[str, None]]
"""By class, who waits for a first row and may be shed, oldest first; the newest is at its end."""


def no_fresh() -> Fresh:
    """Of nobody."""
    return {service_class: OrderedDict() for service_class in ServiceClass}


@dataclass(slots=True)
class Backlog:
    """Work that waits for a model, by class, so that an estimate costs nothing to compute."""

    of_class: dict[ServiceClass, Work] = field(
        default_factory=lambda: {service_class: Work() for service_class in ServiceClass}
    )
    tokens: int = 0
    fresh: Fresh = field(default_factory=no_fresh)

    def add(self, service_class: ServiceClass, service_ns: float, tokens: int) -> None:
        work = self.of_class[service_class]
        work.num_requests += 1
        work.service_ns += service_ns
        work.tokens += tokens
        self.tokens += tokens

    def remove(self, service_class: ServiceClass, service_ns: float, tokens: int) -> None:
        work = self.of_class[service_class]
        work.num_requests -= 1
        work.service_ns = max(0.0, work.service_ns - service_ns)
        work.tokens -= tokens
        self.tokens -= tokens

    def highest(self) -> int:
        """The highest class that waits; -1: none."""
        return max((c for c, work in self.of_class.items() if work.num_requests), default=-1)
