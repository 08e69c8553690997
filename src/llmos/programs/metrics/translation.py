"""BLEU, chrF and TER of sacreBLEU, taken apart: what each sentence contributes, and what sums make.

sacreBLEU counts (its tokenizers and n-grams are the standard); the last step is done here for a
thousand sums at once. Post (2018), Popović (2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from llmos.errors import InvalidRequest, PluginError
from llmos.programs.metrics.score import Floats, Sums, own_cells, ratio

ORDER = 4
BETA = 2.0
TOKENIZERS = {"zh": "zh", "ja": "char", "ko": "char"}
"""By the language of the text; `13a` for all others."""


def translation_scores(
    said: Sequence[str], right: Sequence[Sequence[str]], language: str = ""
) -> list[Sums]:
    """BLEU, chrF and TER, 0 to 100, of texts with one or more references each.

    Raises InvalidRequest for none, PluginError where the extra is missing.
    """
    if not said:
        raise InvalidRequest("there are no texts to score", param="data")
    metrics = _metrics()
    cells = own_cells(len(said))
    columns = _columns(right)
    bleu = metrics.BLEU(tokenize=TOKENIZERS.get(language, "13a"))
    ter = metrics.TER(normalized=True, asian_support=language in TOKENIZERS)
    parts = [_parts(metric, said, columns) for metric in (bleu, metrics.CHRF(), ter)]
    return [
        Sums("bleu", parts[0], cells, _bleu),
        Sums("chrf", parts[1], cells, _chrf),
        Sums("ter", parts[2], cells, _ter, higher_is_better=False),
    ]


def _metrics() -> Any:
    try:
        from sacrebleu import metrics
    except ImportError:
        raise PluginError("BLEU and chrF need an extra: pip install 'llmos[eval]'") from None
    return metrics


def _columns(right: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """References as sacreBLEU takes them: one stream for each, shorter rows with None."""
    most = max(map(len, right))
    if not all(right):
        raise InvalidRequest("a text has no reference", param="data")
    return [[row[n] if n < len(row) else None for row in right] for n in range(most)]


def _parts(metric: Any, said: Sequence[str], columns: list[list[str | None]]) -> Floats:
    stats = metric._extract_corpus_statistics(list(said), columns)
    made: Floats = np.array(stats, dtype=np.float64)
    return made


def _bleu(sums: Floats) -> Floats:
    """From lengths, and n-grams that match and that there are, with NIST's smoothing."""
    said, right = sums[..., 0], sums[..., 1]
    match, total = sums[..., 2 : 2 + ORDER], sums[..., 2 + ORDER :]
    smooth = 2.0 ** np.cumsum((match == 0) & (total > 0), axis=-1)
    precision = np.where(match > 0, ratio(match, total, 0.0), ratio(1.0 / smooth, total, 0.0))
    logs = np.log(np.maximum(precision, np.finfo(np.float64).tiny)).mean(-1)
    brevity = np.exp(np.minimum(0.0, 1 - ratio(right, said, np.inf)))
    made: Floats = 100 * brevity * np.exp(logs)
    return np.where((match.sum(-1) > 0) & (precision > 0).all(-1), made, 0.0)


def _chrf(sums: Floats) -> Floats:
    """From n-grams said, right and shared, for each order; orders that occur count."""
    said, right, match = sums[..., 0::3], sums[..., 1::3], sums[..., 2::3]
    there = (said > 0) & (right > 0)
    num = there.sum(-1).astype(np.float64)
    precision = ratio((ratio(match, said, 0.0) * there).sum(-1), num, 0.0)
    recall = ratio((ratio(match, right, 0.0) * there).sum(-1), num, 0.0)
    factor = BETA**2
    return 100 * ratio((1 + factor) * precision * recall, factor * precision + recall, 0.0)


def _ter(sums: Floats) -> Floats:
    """From edits and the mean length of references."""
    edits, length = sums[..., 0], sums[..., 1]
    return 100 * ratio(edits, length, 1.0)
