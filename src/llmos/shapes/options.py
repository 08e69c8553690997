"""Fields every inference route has: sampling, the `llmos` object, service tiers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field

from llmos.abi.inference import Options, Prompt, Sampling
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest
from llmos.shapes.check import Shape
from llmos.shapes.fields import (
    ModelName,
    Penalty,
    Probability,
    RepetitionPenalty,
    Seed,
    Stops,
    StopTokens,
    Temperature,
    TokenCount,
    TopK,
    fault,
)

MAX_DRIVER_BYTES = 16_384
"""The `llmos.driver` object as JSON, in bytes."""

TIERS: dict[str, ServiceClass | None] = {
    "auto": None,
    "default": ServiceClass.DEFAULT,
    "flex": ServiceClass.BATCH,
    "priority": ServiceClass.INTERACTIVE,
}
"""OpenAI's `service_tier` as our service class; None is the route's own."""

TIER_OF = {cls: tier for tier, cls in TIERS.items() if cls is not None}
CLASSES = {cls.name.lower(): cls for cls in ServiceClass}

TINY_NUCLEUS = 1e-9
"""`top_p` 0 is documented; the smallest nucleus is the likeliest token alone."""


def _tier(value: Any) -> Any:
    if isinstance(value, str) and value not in TIERS:
        raise fault(f"not one of {', '.join(TIERS)}", kind="unsupported")
    return value


def _small(value: dict[str, Any]) -> dict[str, Any]:
    try:
        msgspec.msgpack.encode(value)  # as it will travel to the driver
    except OverflowError:
        raise fault("an integer of it is out of range (64 bits)") from None
    if len(msgspec.json.encode(value)) > MAX_DRIVER_BYTES:
        raise fault(f"over {MAX_DRIVER_BYTES} bytes")
    return value


class StreamOptions(Shape):
    """OpenAI's `stream_options`."""

    include_usage: bool = False


class LlmosOptions(Shape):
    """What OpenAI's API has no word for. Accepted on every inference route."""

    service_class: Literal["batch", "default", "interactive"] | None = Field(
        default=None, alias="class"
    )
    nice: int = Field(default=0, ge=-20, le=19)
    deadline_ms: int | None = Field(default=None, ge=1, le=86_400_000)
    keep_alive: float | None = Field(default=None, ge=0, le=2_592_000, description="Seconds")
    deterministic: bool | None = None
    resume_s: float | None = Field(default=None, ge=0, le=86_400)
    cache_salt: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Share cached prompts only with requests of the same tenant and salt",
    )
    driver: Annotated[dict[str, Any], BeforeValidator(_small)] = Field(default_factory=dict)


NO_OPTIONS = LlmosOptions()


class WishBody(Shape):
    """What every inference route has."""

    model: ModelName
    stream: bool = False
    temperature: Temperature = 1.0
    top_p: Probability = 1.0
    top_k: TopK = 0
    min_p: Probability = 0.0
    seed: Seed | None = None
    frequency_penalty: Penalty = 0.0
    presence_penalty: Penalty = 0.0
    repetition_penalty: RepetitionPenalty = 1.0
    stop: Stops = Field(default_factory=list)
    stop_token_ids: StopTokens = Field(default_factory=list)
    ignore_eos: bool = False
    service_tier: Annotated[
        str | None, BeforeValidator(_tier), Field(json_schema_extra={"enum": list(TIERS)})
    ] = None
    llmos: LlmosOptions = Field(default_factory=lambda: NO_OPTIONS)  # a default is deep-copied

    def to_sampling(self, max_tokens: int) -> Sampling:
        """The abi's words; `max_tokens` as the route understands it."""
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p or TINY_NUCLEUS,
            top_k=max(self.top_k, 0),
            min_p=self.min_p,
            seed=self.seed,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
            max_tokens=max_tokens,
            stop=self.stop,
            stop_token_ids=self.stop_token_ids,
            ignore_eos=self.ignore_eos,
        )

    def to_wish(self, prompt: Prompt, max_tokens: int, route: str) -> Generate:
        """One inference of `prompt` as this body wants it. Raises as `to_options` does."""
        sampling = self.to_sampling(max_tokens)
        return Generate(self.model, prompt, sampling, self.to_options(), route)

    def to_options(self) -> Options:
        """Raises InvalidRequest when `service_tier` and `llmos.class` contradict each other."""
        own = self.llmos
        wanted = TIERS[self.service_tier] if self.service_tier else None
        if own.service_class is not None:
            named = CLASSES[own.service_class]
            if wanted is not None and wanted is not named:
                raise InvalidRequest(
                    f"'llmos.class' {own.service_class!r} contradicts 'service_tier' "
                    f"{self.service_tier!r}.",
                    param="llmos.class",
                )
            wanted = named
        return Options(
            service_class=wanted,
            nice=own.nice,
            deadline_ms=own.deadline_ms,
            keep_alive_s=own.keep_alive,
            deterministic=own.deterministic,
            resume_s=own.resume_s,
            cache_salt=own.cache_salt,
            driver=own.driver,
        )


class InferenceBody(WishBody):
    """What chat and text completions share."""

    stream_options: StreamOptions | None = None
    max_tokens: TokenCount | None = None
    return_token_ids: bool = Field(default=False, description="vLLM's: add the generated token ids")

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage
