"""The recipe: all that decides what is trained, on what, and how. Its fields explain themselves.

Light: the server reads it when a job is submitted, the command line when it explains it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from llmos.errors import InvalidRequest

RECIPE = "recipe"
"""Of the job's `inputs`."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"
SPLITS = (TRAIN, VALIDATION, TEST)
BASE = "base"
"""Of the job's `models`."""


class Objective(enum.StrEnum):
    """What is learned."""

    CLASSIFY = "classify"
    TAG = "tag"
    QA = "qa"
    REGRESS = "regress"
    MASKED = "masked"
    CAUSAL = "causal"
    DENOISE = "denoise"
    SEQ2SEQ = "seq2seq"
    EMBED = "embed"
    IMAGES = "images"
    SOUNDS = "sounds"
    SFT = "sft"
    DPO = "dpo"
    KTO = "kto"
    REWARD = "reward"
    GRPO = "grpo"


class Method(enum.StrEnum):
    """Which weights are learned."""

    FULL = "full"
    HEAD = "head"
    LORA = "lora"
    DORA = "dora"
    QLORA = "qlora"
    ADALORA = "adalora"
    IA3 = "ia3"
    PREFIX = "prefix"
    PROMPT = "prompt"
    P_TUNING = "p-tuning"
    BOTTLENECK = "bottleneck"


MERGED = frozenset({Method.LORA, Method.DORA, Method.ADALORA, Method.IA3})
"""What is added becomes part of the base's own matrices at the end. QLoRA's are four bits wide, and
what virtual tokens and bottlenecks add has no place in them: those are kept as adapters."""

WHOLE = frozenset({Method.FULL, Method.HEAD})
"""What is learned is the model's own."""


class Format(enum.StrEnum):
    """Of the data's files."""

    CSV = "csv"
    TSV = "tsv"
    JSONL = "jsonl"
    JSON = "json"
    PARQUET = "parquet"
    CONLL = "conll"
    LINES = "lines"
    TEXT = "text"
    FOLDER = "folder"


Share = Annotated[float, Meta(gt=0, lt=1)]
Name = Annotated[str, Meta(min_length=1, max_length=128)]
Count = Annotated[int, Meta(ge=1)]
Above0 = Annotated[float, Meta(gt=0)]


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where examples come from."""

    train: Annotated[str, Meta(description="File or folder with the examples to learn from")] = ""
    validation: Annotated[
        str | Share,
        Meta(description="File, or share of `train`, to choose by; 0.1 where nothing is said"),
    ] = ""
    test: Annotated[
        str | Share, Meta(description="File, or share of `train`, that is only measured at the end")
    ] = ""
    format: Annotated[
        Format | None, Meta(description="What the files are; by their names where nothing is said")
    ] = None
    text: Annotated[Name, Meta(description="Column of the text")] = "text"
    pair: Annotated[
        str, Meta(description="Column of a second text (pairs of sentences, positives of `embed`)")
    ] = ""
    label: Annotated[Name, Meta(description="Column of the label, or of the number")] = "label"
    target: Annotated[
        Name, Meta(description="Column of what a text is to become (`seq2seq`, `sft`)")
    ] = "target"
    limit: Annotated[Count | None, Meta(description="At most so many examples of every file")] = (
        None
    )


class Architecture(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A model from scratch. With a `base`, only `max_length` and `pooling` count."""

    family: Annotated[
        str,
        Meta(description="bert, modernbert, gpt2, llama, t5, vit, wav2vec2; what suits if unsaid"),
    ] = ""
    pooling: Annotated[
        Literal["first", "mean"] | None,
        Meta(
            description="What one label is told from: the first token, or the mean of all; as the "
            "model does where unsaid (of classify, regress, reward and masked; modernbert and "
            "eurobert have the choice)"
        ),
    ] = None
    vocab_size: Annotated[
        int, Meta(ge=64, le=1 << 20, description="Entries of the tokenizer, which is trained too")
    ] = 8000
    hidden_size: Annotated[int, Meta(ge=8, le=16384, description="Width")] = 128
    num_layers: Annotated[int, Meta(ge=1, le=256, description="Layers (of each side of a t5)")] = 2
    num_heads: Annotated[int, Meta(ge=1, le=256, description="Attention heads")] = 4
    intermediate_size: Annotated[
        Count | None, Meta(description="Width within a layer; 4 x where unsaid")
    ] = None
    max_length: Annotated[
        int, Meta(ge=8, le=1 << 20, description="Longest text in tokens; longer ones are cut")
    ] = 128
    image_size: Annotated[
        int, Meta(ge=4, le=4096, description="Height and width of pictures, in pixels")
    ] = 32
    patch_size: Annotated[int, Meta(ge=1, le=512, description="Of a picture's pieces")] = 4
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Of a model from scratch")] = 0.1
    lowercase: Annotated[bool, Meta(description="Whether the tokenizer makes letters small")] = True


class Adapter(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Of methods that add a few weights to a model."""

    rank: Annotated[int, Meta(ge=1, le=1024, description="Of LoRA and its kin; width of a")] = 8
    alpha: Annotated[Above0 | None, Meta(description="Scale; 2 x rank where unsaid")] = None
    dropout: Annotated[float, Meta(ge=0, lt=1, description="Before the added weights")] = 0.0
    targets: Annotated[
        list[str], Meta(description="Names of layers it is added to; all linear ones where unsaid")
    ] = []
    tokens: Annotated[
        int, Meta(ge=1, le=4096, description="Virtual tokens of prefix, prompt and p-tuning")
    ] = 16


class Training(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How it is learned."""

    epochs: Annotated[float, Meta(gt=0, description="Times through the data")] = 3.0
    steps: Annotated[
        Count | None, Meta(description="Updates of the weights, instead of `epochs`")
    ] = None
    batch_size: Annotated[
        int, Meta(ge=1, le=65536, description="Examples at once, of each process")
    ] = 32
    accumulate: Annotated[int, Meta(ge=1, description="Batches for each update")] = 1
    learning_rate: Annotated[
        Above0 | None,
        Meta(description="5e-4 from scratch, 5e-5 for all weights, 1e-3 for few of them"),
    ] = None
    optimizer: Annotated[
        Name, Meta(description="adamw, sgd, adafactor, rmsprop, adagrad, or as Transformers' optim")
    ] = "adamw"
    schedule: Annotated[
        Name, Meta(description="linear, cosine, constant ..., as Transformers' lr_scheduler_type")
    ] = "linear"
    warmup: Annotated[float, Meta(ge=0, lt=1, description="Share of the steps to warm up")] = 0.06
    weight_decay: Annotated[float, Meta(ge=0, description="Of matrices")] = 0.01
    momentum: Annotated[float, Meta(ge=0, lt=1, description="Of sgd")] = 0.9
    clip: Annotated[float, Meta(ge=0, description="Largest norm of a gradient; 0: any")] = 1.0
    label_smoothing: Annotated[float, Meta(ge=0, lt=1, description="Of classes")] = 0.0
    class_weights: Annotated[
        Literal["balanced"] | dict[str, float] | None,
        Meta(description="What each label counts; `balanced`: the less the more there are"),
    ] = None
    precision: Annotated[
        Literal["float32", "bfloat16", "float16"],
        Meta(description="Of the arithmetic; weights stay float32 (float16: on GPUs only)"),
    ] = "float32"
    gradient_checkpointing: Annotated[
        bool, Meta(description="Compute activations twice rather than keep them")
    ] = False
    mask: Annotated[float, Meta(gt=0, lt=1, description="Share masked (`masked`, `denoise`)")] = (
        0.15
    )
    temperature: Annotated[float, Meta(gt=0, description="Of contrastive `embed`")] = 0.05
    beta: Annotated[float, Meta(gt=0, description="Of dpo, kto and grpo")] = 0.1
    processes: Annotated[
        int, Meta(ge=1, le=64, description="On this machine; each learns from a part of the batch")
    ] = 1
    threads: Annotated[
        Count | None,
        Meta(description="Processors of each process; by the size of a step where unsaid"),
    ] = None
    seed: Annotated[int, Meta(ge=0, le=2**31 - 1, description="Same seed, same weights")] = 0


class Watching(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How it is measured, and when it stops."""

    evaluate_every: Annotated[
        Count | None, Meta(description="Steps from one validation to the next; once an epoch")
    ] = None
    log_every: Annotated[
        Count | None, Meta(description="Steps from one loss to the next; about 200 in all")
    ] = None
    metric: Annotated[
        str, Meta(description="To choose the best weights by; `loss` or one that is measured")
    ] = ""
    patience: Annotated[
        Count | None, Meta(description="Stop after so many validations without a better one")
    ] = None
    keep_best: Annotated[bool, Meta(description="The best weights, not the last")] = True
    checkpoint_s: Annotated[
        float, Meta(gt=0, description="Seconds between checkpoints, at least")
    ] = 60.0
    samples: Annotated[int, Meta(ge=0, le=20, description="Outputs shown at every validation")] = 3


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A training run."""

    name: Annotated[Name, Meta(description="Of the model that is made")]
    objective: Annotated[Objective, Meta(description="What is learned")]
    data: Annotated[Data, Meta(description="Where examples come from")] = Data()
    base: Annotated[str, Meta(description="A registered version; none: from scratch")] = ""
    method: Annotated[Method, Meta(description="Which weights are learned")] = Method.FULL
    model: Annotated[Architecture, Meta(description="What is made from scratch")] = Architecture()
    adapter: Annotated[Adapter, Meta(description="Of methods that add weights")] = Adapter()
    training: Annotated[Training, Meta(description="How it is learned")] = Training()
    watch: Annotated[Watching, Meta(description="Measures and checkpoints")] = Watching()
    register: Annotated[
        bool | Literal["merged", "adapter"],
        Meta(
            description="Make a model version of it: `merged`, a whole model, where the method "
            "can; `adapter`, a small one over its base, which must then stay"
        ),
    ] = True


FAMILIES: dict[Objective, tuple[str, ...]] = {
    Objective.CLASSIFY: ("bert", "modernbert", "gpt2", "llama"),
    Objective.TAG: ("bert", "modernbert"),
    Objective.QA: ("bert", "modernbert"),
    Objective.REGRESS: ("bert", "modernbert"),
    Objective.MASKED: ("bert", "modernbert"),
    Objective.CAUSAL: ("llama", "gpt2"),
    Objective.DENOISE: ("t5",),
    Objective.SEQ2SEQ: ("t5",),
    Objective.EMBED: ("bert", "modernbert"),
    Objective.IMAGES: ("vit",),
    Objective.SOUNDS: ("wav2vec2",),
}
"""Of models from scratch; the first is taken where none is said."""

POOLED = (Objective.CLASSIFY, Objective.REGRESS, Objective.REWARD, Objective.MASKED)
"""Those in which a pooling is read, or, of words that are hidden, handed on to what is."""

POOLINGS: dict[str, dict[str, str]] = {
    "modernbert": {"first": "cls", "mean": "mean"},
    "eurobert": {"first": "bos", "mean": "mean"},
}
"""Families whose configuration says what a label is told from (`classifier_pooling`), and how they
call it: Transformers' own classes read it, so whoever loads the model pools as it has learned."""


def parse(given: Any) -> Recipe:
    """Raises InvalidRequest naming the field."""
    if not isinstance(given, Mapping):
        raise InvalidRequest("a recipe is an object of fields", param=RECIPE)
    try:
        recipe = msgspec.convert(given, Recipe)
    except msgspec.ValidationError as error:
        why, _, where = str(error).partition(" - at `$")
        field = where.rstrip("`").lstrip(".") or _unknown(why)
        raise InvalidRequest(f"recipe: {why}", param=f"{RECIPE}.{field}".rstrip(".")) from None
    check(recipe)
    return recipe


def _unknown(why: str) -> str:
    return why.split("`")[1] if why.count("`") == 2 else ""


def check(recipe: Recipe) -> None:
    """What fields say together. Raises InvalidRequest."""

    def refuse(field: str, why: str) -> None:
        raise InvalidRequest(f"recipe: {field}: {why}", param=f"{RECIPE}.{field}")

    families = FAMILIES.get(recipe.objective, ())
    if recipe.model.pooling and recipe.objective not in POOLED:
        known = ", ".join(POOLED)
        refuse("model.pooling", f"{recipe.objective} does not read it; {known} do")
    if not recipe.base:
        if not families:
            refuse("base", f"{recipe.objective} goes on from a model: name one")
        if recipe.method is not Method.FULL:
            refuse("method", f"{recipe.method} goes on from a model: name a `base`")
        if recipe.model.family and recipe.model.family not in families:
            known = ", ".join(families)
            refuse("model.family", f"{recipe.model.family!r} is none of {known}")
        if recipe.model.pooling and family_of(recipe) not in POOLINGS:
            refuse("model.pooling", f"{family_of(recipe)} has one way only: family: modernbert")
        if recipe.model.hidden_size % recipe.model.num_heads:
            refuse("model.num_heads", "does not divide hidden_size")
    if recipe.register == "adapter" and recipe.method is Method.FULL:
        refuse("register", "method full changes all of the base: there is no adapter of it")
    if recipe.register == "merged" and recipe.method not in MERGED | WHOLE:
        refuse("register", f"what {recipe.method} adds has no place in the base: it is an adapter")
    shares = [s for s in (recipe.data.validation, recipe.data.test) if isinstance(s, float)]
    if sum(shares) >= 1:
        refuse("data.test", "validation and test take all examples: none are left to learn from")
    if recipe.training.class_weights and recipe.objective is not Objective.CLASSIFY:
        refuse("training.class_weights", "only `classify` has classes that weigh")


def find_pooling(family: str, wanted: str, base: str) -> str:
    """In the family's words. Raises InvalidRequest where it has no choice."""
    if family not in POOLINGS:
        known = ", ".join(POOLINGS)
        raise InvalidRequest(
            f"recipe: model.pooling: {base} is {family}, which has one way only; {known} have two",
            param=f"{RECIPE}.model.pooling",
        )
    return POOLINGS[family][wanted]


def is_apart(recipe: Recipe) -> bool:
    """Whether what comes of it is an adapter, and not a whole model."""
    return recipe.register == "adapter" or recipe.method not in MERGED | WHOLE


def family_of(recipe: Recipe) -> str:
    """Of a model from scratch."""
    return recipe.model.family or FAMILIES[recipe.objective][0]


def learning_rate(recipe: Recipe) -> float:
    """As said, or as it is usual."""
    if recipe.training.learning_rate is not None:
        return recipe.training.learning_rate
    if not recipe.base:
        return 5e-4
    return 5e-5 if recipe.method is Method.FULL else 1e-3
