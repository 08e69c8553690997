"""One inference request, from the front end's wish to the driver's work item."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.principal import ServiceClass

GENERATE = "generate"
"""The kind of work that continues a text; what other kinds take and give is in `docs/kinds.md`."""

UNBOUNDED = 0
"""`max_tokens` of a request that wants whatever the context still holds."""


class Grammar(msgspec.Struct, frozen=True):
    """What an answer has to be: `kind` says what `text` is, `json_schema`, `regex` or `lark`.

    `lenient`: of a schema, keywords nobody implements are ignored, where else they are refused.
    """

    kind: str
    text: str
    lenient: bool = False


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the next token is drawn. Neutral values switch a step off (OpenAI's and vLLM's meanings).

    `top_k` 0 is off. `seed` None draws one from the system. Penalties: frequency and presence as
    OpenAI defines them (over generated tokens), repetition as CTRL does (prompt and generated).
    `logprobs`: with each token its log-probability and those of so many likeliest ones (0: its own
    alone); None: not wanted. `prompt_logprobs`: the same of the prompt's tokens. `logit_bias`:
    token ids, and what is added to their logits. `grammar` binds the answer; with tools, what is
    not a call of one.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = UNBOUNDED
    stop: list[str] = []
    stop_token_ids: list[int] = []
    ignore_eos: bool = False
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: list[tuple[int, float]] = []
    grammar: Grammar | None = None


class ChatPrompt(msgspec.Struct, frozen=True, omit_defaults=True, tag="chat"):
    """Messages as OpenAI shapes them, already validated; the template is applied by `prepare`.

    `tool_choice`: `auto`, `none`, `required`, or the name of the tool to call after `name:`.
    `parallel_tools` False: one call at most. `tool_format`: how this model writes calls (a name of
    `shapes.toolcalls`); empty: as its template says.

    A message of the user's with images has parts: OpenAI's of texts, its `image_url` where the URL
    is of elsewhere, and `{"type": "image", "blob": N, "media_type"}` for one that lies in the file
    that `blobs[N].path` names, which its owner keeps until the request has ended. What is no text
    has under `where` what errors call it.
    """

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    template_kwargs: dict[str, Any] = {}
    tool_choice: str = "auto"
    parallel_tools: bool = True
    tool_format: str = ""
    blobs: list[BlobRef] = []


class TextPrompt(msgspec.Struct, frozen=True, tag="text"):
    """Raw text, tokenized with the model's special tokens as its tokenizer adds them."""

    text: str


class TokensPrompt(msgspec.Struct, frozen=True, tag="tokens"):
    """Token ids, taken as they are."""

    token_ids: list[int]


class ItemsPrompt(msgspec.Struct, frozen=True, tag="items"):
    """Work of a kind that is answered item by item: classify, embed, transcribe ...

    `kind` "": the first one that the model is for. `items` are JSON, as the kind shapes them;
    `params` hold for all of them. Where an item is of bytes (an image, sound), it is
    `{"blob": N}`, and they are in the file that `blobs[N].path` names, which its owner keeps until
    the request has ended.
    """

    kind: str
    items: list[Any]
    params: dict[str, Any] = {}
    blobs: list[BlobRef] = []


Prompt = ChatPrompt | TextPrompt | TokensPrompt | ItemsPrompt


class Options(msgspec.Struct, frozen=True, omit_defaults=True):
    """The `llmos` object of a request body: what OpenAI's API has no word for.

    `service_class` None: the default of the route. `nice` orders within a class (-20 first, 19
    last). `deterministic` None: the committed default of device and dtype. `cache_salt` parts what
    is cached within the tenant; across tenants nothing is shared whatever it says. `driver` goes
    to the driver as it is; one that does not know a key refuses it.
    """

    service_class: ServiceClass | None = None
    nice: int = 0
    deadline_ms: int | None = None
    keep_alive_s: float | None = None
    deterministic: bool | None = None
    resume_s: float | None = None
    cache_salt: str | None = None
    driver: dict[str, Any] = {}


class Usage(msgspec.Struct, frozen=True):
    """Exact token counts. `cached_tokens` of the prompt were found in a prefix cache. `cost` is in
    US dollars, of a model that somebody else is paid for; None: it has no price."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cost: float | None = None


class PrepareItem(msgspec.Struct, frozen=True):
    """Work for the tokenizer worker. `folder` holds the tokenizer; `entry` names the code.

    `kind` is that of the prompt, resolved, and `context_length` the longest row of tokens that the
    replica takes; of a prompt that is generated from, the kernel checks the length. `spill` is the
    path of a file that the preparer may make for what is too large for a message; the kernel
    deletes it in the end.
    """

    request_id: str
    entry: str
    folder: str
    prompt: Prompt
    vocab_size: int
    grammar: Grammar | None = None
    kind: str = GENERATE
    context_length: int = 0
    spill: str = ""


class Prepared(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tokenized prompt: `tokens` are int32, little-endian, `num_tokens` of them.

    Of a model whose tokens are unknown here (a remote one), `tokens` is what its driver reads in
    their place, and `num_tokens` an estimate.

    `grammar`: what the answer has to be, which compiles; with tools it allows their calls or
    demands them. `tool_format`: how calls are written in the answer, empty where none are looked
    for; `shown` are the special tokens that are part of it.

    `payload` is what the preparer hands to its driver besides, `spill` what of it is in the file of
    that name: of items all there is (`num_tokens` is what they cost together, for queues and
    shares), of a chat its images.
    """

    request_id: str
    tokens: bytes
    num_tokens: int
    grammar: Grammar | None = None
    tool_format: str = ""
    shown: list[int] = []
    payload: bytes = b""
    spill: str = ""


class WorkItem(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a driver is asked to do. `tokens` as in `Prepared`; `kind` is a capability's name.

    `generated`: tokens of the answer that were drawn already, int32, little-endian. A submitted
    item that has some is *recomputed*: the driver reads them after the prompt and goes on, says
    none of them again, counts them as its own, and does not promise equal bits from there on.
    Of a kind that is answered item by item, they are the numbers of the items that are answered.

    `payload` and `spill` as in `Prepared`: of items, and of what a prompt has beside its tokens.

    `deterministic` None: the replica's default. `options` are the request's `Options.driver`.
    `cache_salt`: what is cached under one is never found under another; no two tenants have one.
    `service_class` is a hint for the order of work inside a step: rows are the kernel's to give.
    `grammar` is what binds the answer, whatever `sampling` says of one; `shown` as in `Prepared`.
    """

    request_id: str
    tokens: bytes
    sampling: Sampling
    kind: str = GENERATE
    adapter: str | None = None
    grammar: Grammar | None = None
    cache_salt: str = ""
    trace_parent: str | None = None
    deterministic: bool | None = None
    options: dict[str, Any] = {}
    service_class: ServiceClass = ServiceClass.DEFAULT
    generated: bytes = b""
    shown: list[int] = []
    payload: bytes = b""
    spill: str = ""
