"""Fields every inference route has: sampling, the `llmos` object, service tiers."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from pydantic import BeforeValidator, Field

from llmos.abi.inference import Grammar, Options, Prompt, Sampling
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest
from llmos.shapes import table
from llmos.shapes.check import Shape
from llmos.shapes.fields import (
    MAX_INT32,
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
    parse_int,
)
from llmos.shapes.structured import (
    MAX_GRAMMAR_CHARS,
    one_grammar,
    schema_text,
    structured_grammar,
)

MAX_BIASES = 1024
"""OpenAI names no bound; its client sends few."""

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


def _schema(value: Any) -> Any:
    """Strict, as `response_format` has it."""
    if not isinstance(value, dict):
        raise fault("must be an object")
    return Grammar("json_schema", schema_text(value))


def _bias(value: Any) -> Any:
    """OpenAI's object of token ids, in their order."""
    if not isinstance(value, dict):
        raise fault("must be an object")
    if len(value) > MAX_BIASES:
        raise fault(f"more than {MAX_BIASES} tokens")
    made = []
    for key, bias in value.items():
        token_id = parse_int(key)
        if token_id is None or token_id > MAX_INT32:
            raise fault("is not a token id", key[:64])
        if isinstance(bias, bool) or not isinstance(bias, int | float) or not -100 <= bias <= 100:
            raise fault("must be a number from -100 to 100", key[:64])
        made.append((token_id, float(bias)))
    return sorted(made)


class StreamOptions(Shape):
    """OpenAI's `stream_options`."""

    beside = table.STREAM_OPTIONS

    include_usage: bool = Field(default=False, description="End with an event of the usage")


class LlmosOptions(Shape):
    """What OpenAI's API has no word for. Accepted on every inference route."""

    service_class: Literal["batch", "default", "interactive"] | None = Field(
        default=None, alias="class", description="How urgent it is, by class"
    )
    nice: int = Field(default=0, ge=-20, le=19, description="And within its class: -20 comes first")
    deadline_ms: int | None = Field(
        default=None,
        ge=1,
        le=86_400_000,
        description="Since it arrived; what cannot keep it is refused, or ended",
    )
    keep_alive: float | None = Field(
        default=None,
        ge=0,
        le=2_592_000,
        description="How long the model then stays unused, in seconds",
    )
    deterministic: bool | None = Field(
        default=None,
        description="Answers do not depend on who else is served; absent: as is best there",
    )
    resume_s: float | None = Field(
        default=None,
        ge=0,
        le=86_400,
        description="Keep a broken stream so long, in seconds: see `Last-Event-ID`",
    )
    cache_salt: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        description="Share cached prompts only with requests of the same tenant and salt",
    )
    regex: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_GRAMMAR_CHARS,
        description="The whole answer matches it",
    )
    grammar: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAX_GRAMMAR_CHARS,
        description="A grammar in Lark's form, as llguidance reads it",
    )
    json_schema: Annotated[Any, BeforeValidator(_schema, json_schema_input_type=dict[str, Any])] = (
        Field(default=None, description="The answer is JSON of this schema")
    )
    tool_format: Literal["deepseek", "glaive", "hermes", "llama3", "mistral", "pythonic"] | None = (
        Field(
            default=None,
            description="How this model writes calls of tools, if not as its template says",
        )
    )
    driver: Annotated[dict[str, Any], BeforeValidator(_small)] = Field(
        default_factory=dict, description="What only the model's driver knows"
    )


NO_OPTIONS = LlmosOptions()


class WishBody(Shape):
    """What every inference route has."""

    model: ModelName = Field(description="`name`, `name:version` or `name:alias`")
    stream: bool = Field(default=False, description="Answer as server-sent events")
    temperature: Temperature = Field(default=1.0, description="0: always the likeliest token")
    top_p: Probability = Field(
        default=1.0, description="Draw from the likeliest tokens that make up this much"
    )
    top_k: TopK = Field(
        default=0, description="vLLM's: draw from so many of the likeliest; 0 and -1 are off"
    )
    min_p: Probability = Field(
        default=0.0,
        description="vLLM's: draw from tokens at least this likely, against the likeliest",
    )
    seed: Seed | None = Field(default=None, description="Draw the same again")
    frequency_penalty: Penalty = Field(
        default=0.0, description="Against tokens, by how often they came"
    )
    presence_penalty: Penalty = Field(default=0.0, description="Against tokens that came")
    repetition_penalty: RepetitionPenalty = Field(
        default=1.0,
        description="vLLM's: divides what speaks for tokens that came, the prompt's too",
    )
    stop: Stops = Field(default_factory=list, description="End before any of these texts")
    stop_token_ids: StopTokens = Field(
        default_factory=list, description="vLLM's: end at any of these tokens"
    )
    ignore_eos: bool = Field(default=False, description="vLLM's: do not end where the model would")
    logit_bias: Annotated[Any, BeforeValidator(_bias, json_schema_input_type=dict[str, float])] = (
        Field(default_factory=list, description="Added for each token id, from -100 to 100")
    )
    service_tier: Annotated[
        str | None, BeforeValidator(_tier), Field(json_schema_extra={"enum": [*TIERS, None]})
    ] = Field(
        default=None,
        description="OpenAI's word for a class: `flex` is batch, `priority` interactive",
    )
    llmos: LlmosOptions = Field(
        default_factory=lambda: NO_OPTIONS, description="What OpenAI's API has no word for"
    )  # a default is deep-copied

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
            logprobs=self.num_logprobs,
            prompt_logprobs=self.num_prompt_logprobs,
            logit_bias=self.logit_bias,
            grammar=self.to_grammar(),
        )

    @property
    def num_logprobs(self) -> int | None:
        """Of likeliest tokens to tell of each; None: of none."""
        return None

    @property
    def num_prompt_logprobs(self) -> int | None:
        """The same of the prompt."""
        return None

    def grammars(self) -> dict[str, Grammar | None]:
        """What the answer has to be, by the field that says so."""
        own = self.llmos
        return {
            "llmos.regex": None if own.regex is None else Grammar("regex", own.regex),
            "llmos.grammar": None if own.grammar is None else Grammar("lark", own.grammar),
            "llmos.json_schema": own.json_schema,
        }

    def to_grammar(self) -> Grammar | None:
        """Raises InvalidRequest for several."""
        return one_grammar(self.grammars())

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

    n: Annotated[int, Field(ge=1, le=128, description="Answers to each prompt")] = 1

    stream_options: StreamOptions | None = Field(default=None, description="Of a streamed answer")
    max_tokens: TokenCount | None = Field(default=None, description="Of one answer")
    return_token_ids: bool = Field(default=False, description="vLLM's: add the generated token ids")
    structured_outputs: Annotated[
        Any, BeforeValidator(structured_grammar, json_schema_input_type=dict[str, Any])
    ] = Field(default=None, description="vLLM's: `json`, `regex`, `choice` or `grammar`")

    def grammars(self) -> dict[str, Grammar | None]:
        return {"structured_outputs": self.structured_outputs, **super().grammars()}

    def repeated(self, wish: Generate) -> list[Generate]:
        """A wish for each of its answers. Of a seed, each has its own."""
        seed = wish.sampling.seed
        if seed is None or self.num_each == 1:
            return [wish] * self.num_each
        return [
            msgspec.structs.replace(
                wish, sampling=msgspec.structs.replace(wish.sampling, seed=_nth_seed(seed, i))
            )
            for i in range(self.num_each)
        ]

    @property
    def num_each(self) -> int:
        """Answers made to each prompt, of which `n` are told."""
        return self.n

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage


def _nth_seed(seed: int, number: int) -> int:
    """Wrapping as 64 bits do."""
    return (seed + number + 2**63) % 2**64 - 2**63
