"""What a model with an encoder can be asked for, by its architecture. Torch-free."""

from __future__ import annotations

import enum

import msgspec


class Kind(enum.StrEnum):
    """Work that is answered item by item; `docs/kinds.md` shows what each takes and gives."""

    CLASSIFY = "text-classification"
    ZERO_SHOT = "zero-shot-classification"
    RERANK = "rerank"
    TOKENS = "token-classification"
    ANSWER = "question-answering"
    FILL = "fill-mask"
    EMBED = "embeddings"
    SUMMARIZE = "summarization"
    TRANSLATE = "translation"
    CLASSIFY_IMAGE = "image-classification"
    DETECT = "object-detection"
    TRANSCRIBE = "automatic-speech-recognition"
    CAPTION = "image-to-text"
    SPEAK = "text-to-speech"


class Head(enum.StrEnum):
    """What stands on top of an encoder: it decides how a row is computed."""

    SEQUENCE = "sequence"
    TOKEN = "token"  # noqa: S105 (no secret)
    SPAN = "span"
    MASK = "mask"
    POOL = "pool"
    DECODER = "decoder"
    IMAGE = "image"
    BOXES = "boxes"
    CTC = "ctc"
    SPEECH_DECODER = "speech-decoder"
    IMAGE_DECODER = "image-decoder"
    CAPTIONER = "captioner"
    VOICE = "voice"


WRITING = frozenset({Head.DECODER, Head.SPEECH_DECODER, Head.IMAGE_DECODER, Head.CAPTIONER})
"""Heads that make text, one token at a time."""


class Purpose(msgspec.Struct, frozen=True):
    """`kinds`: the first is what the model is for."""

    head: Head
    kinds: list[str]


TEXT_FAMILIES = (
    *("Albert", "Bert", "BigBird", "Camembert", "Data2VecText", "Deberta", "DebertaV2"),
    *("DistilBert", "Electra", "Ernie", "EuroBert", "MegatronBert", "MobileBert", "ModernBert"),
    *("MPNet", "NomicBert", "RemBert", "RobertaPreLayerNorm", "Roberta", "RoFormer", "SqueezeBert"),
    *("XLMRobertaXL", "XLMRoberta"),
)
"""Encoders of text whose padding changes nothing. ConvBert is not among them: it convolves over
neighbours, padded ones too, so that a row would follow whoever it shares a batch with."""

DECODER_FAMILIES = ("Bart", "LongT5", "M2M100", "MBart", "MT5", "Pegasus", "T5", "UMT5")
"""Encoders of text with a decoder that reads them."""

IMAGE_FAMILIES = (
    *("BeitFor", "ConvNextFor", "ConvNextV2For", "DeiTFor", "Dinov2For", "ResNetFor"),
    *("SwinFor", "ViTFor"),
)
BOX_FAMILIES = ("Yolos", "Detr")
CTC_FAMILIES = ("Wav2Vec2", "Hubert", "WavLM", "Data2VecAudio", "SEW")

_TEXT_HEADS: list[tuple[str, Head, list[Kind]]] = [
    ("ForSequenceClassification", Head.SEQUENCE, [Kind.CLASSIFY]),
    ("ForTokenClassification", Head.TOKEN, [Kind.TOKENS]),
    ("ForQuestionAnswering", Head.SPAN, [Kind.ANSWER]),
    ("ForMaskedLM", Head.MASK, [Kind.FILL]),
    ("Model", Head.POOL, [Kind.EMBED]),
]


def find_purpose(architecture: str, labels: list[str], *, pools: bool = False) -> Purpose | None:
    """None where no such model is known.

    `labels`: the names of its classes, if it has any; `pools`: the folder says how to make vectors
    of its hidden states (sentence-transformers' `modules.json`), which is what it is for then.
    """
    for family in TEXT_FAMILIES:
        for suffix, head, kinds in _TEXT_HEADS:
            if architecture == family + suffix:
                if pools and head is Head.MASK:
                    return Purpose(Head.POOL, [Kind.EMBED])
                return Purpose(head, _refined(head, kinds, labels))
    return _find_other(architecture)


def _find_other(architecture: str) -> Purpose | None:
    if architecture in _ALONE:
        head, kind = _ALONE[architecture]
        return Purpose(head, [kind])
    for families, suffix, head, kinds in (
        (DECODER_FAMILIES, "ForConditionalGeneration", Head.DECODER, _TEXT_TO_TEXT),
        (CTC_FAMILIES, "ForCTC", Head.CTC, [Kind.TRANSCRIBE]),
        (IMAGE_FAMILIES, "ImageClassification", Head.IMAGE, [Kind.CLASSIFY_IMAGE]),
        (BOX_FAMILIES, "ForObjectDetection", Head.BOXES, [Kind.DETECT]),
    ):
        if any(architecture == family + suffix for family in families):
            return Purpose(head, [*kinds])
    return None


_ALONE: dict[str, tuple[Head, Kind]] = {
    "WhisperForConditionalGeneration": (Head.SPEECH_DECODER, Kind.TRANSCRIBE),
    "VisionEncoderDecoderModel": (Head.IMAGE_DECODER, Kind.CAPTION),
    "BlipForConditionalGeneration": (Head.CAPTIONER, Kind.CAPTION),
    "VitsModel": (Head.VOICE, Kind.SPEAK),
}
"""Architectures that are families of one."""

_TEXT_TO_TEXT = [Kind.SUMMARIZE, Kind.TRANSLATE]


def _refined(head: Head, kinds: list[Kind], labels: list[str]) -> list[str]:
    """A single class is a score of a pair; classes of entailment judge what was never trained."""
    if head is not Head.SEQUENCE:
        return [*kinds]
    if len(labels) == 1:
        return [Kind.RERANK, Kind.CLASSIFY]
    if find_entailment(labels) is not None:
        return [Kind.ZERO_SHOT, Kind.CLASSIFY]
    return [*kinds]


def find_entailment(labels: list[str]) -> int | None:
    """The class of "this follows from that", as Transformers' pipeline finds it."""
    return next((i for i, name in enumerate(labels) if name.lower().startswith("entail")), None)
