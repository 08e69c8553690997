"""Texts as tokens that are compared: words where a script has words, characters where it has none.

Han, kana and Hangul have none here: each character stands alone, so no segmenter is measured.
"""

from __future__ import annotations

import re
import string

_ALONE = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff"
_TOKEN = re.compile(rf"[{_ALONE}]|[^\W_{_ALONE}]+")
_HAS_ALONE = re.compile(rf"[{_ALONE}]")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = frozenset(string.punctuation)
_CJK_PUNCTUATION = frozenset("-:_*^/\\~`+=，。：？！“”；’《》……·、「」（）－～『』‘【】〔〕〈〉．")
"""CMRC 2018's own list: what its normalisation leaves out."""


def has_no_words(text: str) -> bool:
    """Whether it has characters of a script without spaces between words."""
    return _HAS_ALONE.search(text) is not None


def tokens_of(text: str) -> list[str]:
    """Lower-cased words and lone characters; marks fall away. Of ASCII, what rouge-score reads."""
    return _TOKEN.findall(text.lower())


def squad_normal(text: str) -> str:
    """SQuAD's: lower case, without marks, articles and what spaces are too many."""
    bare = "".join(char for char in text.lower() if char not in _PUNCTUATION)
    return " ".join(_ARTICLES.sub(" ", bare).split())


def cmrc_normal(text: str) -> str:
    """CMRC 2018's: lower case, without spaces at the ends and marks of either script."""
    return "".join(char for char in text.lower().strip() if char not in _CJK_PUNCTUATION)


def cmrc_tokens(text: str) -> list[str]:
    """CMRC 2018's mixed segmentation, words of ASCII letters and digits whole."""
    return _TOKEN.findall(cmrc_normal(text))
