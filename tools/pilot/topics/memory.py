"""Using what was said: names, likes, and saying a thing again."""
# ruff: noqa: SIM905 - phrases stay on one line, word lists read as words

from __future__ import annotations

import random

from tools.pilot.grammar import Exchange, Language, expand, normal
from tools.pilot.topics.words import PAIRS

NAMES_EN = (
    "Ada Ben Clara David Emma Finn Grace Henry Iris Jack Kate Leo Mia Noah Olga Paul Rosa Sam Tina "
    "Victor Wendy Max Lucy Tom Anna Peter Maria John"
).split()
NAMES_ZH = "小明 小红 小华 小丽 小刚 小芳 小强 小雨 阿杰 阿兰 大伟 晓东 李雷 王芳 张伟 陈晨".split()
_LIKED = [
    (e, z) for group in ("animal", "fruit", "food", "colour") for e, z in PAIRS[group].items()
]
_SYLLABLES = (
    "ba be bo da de do fa fi ka ki ko la li lo ma mi na no pa pi ra ri ro sa su ta ti to".split()
)


def sample(rng: random.Random, language: Language) -> Exchange:
    """A name or a liking told and asked back, or a phrase to say again."""
    draw = rng.random()
    if draw < 0.35:
        return _name(rng, language)
    if draw < 0.6:
        return _liking(rng, language)
    return _again(rng, language)


def _name(rng: random.Random, language: Language) -> Exchange:
    if language == "en":
        name = rng.choice(NAMES_EN)
        if rng.random() < 0.3:
            name = "".join(rng.sample(_SYLLABLES, rng.randint(2, 3))).capitalize()
        tell = expand(
            rng, "[My name is|I am|I'm|Call me|Hello, I am|Hi, my name is] {n}[.|!]", n=name
        )
        ask = expand(rng, "[What is my name|What's my name|Do you know my name|Who am I][?|]")
        turns = ((tell, f"Nice to meet you, {name}!"), (ask, f"Your name is {name}."))
    else:
        name = rng.choice(NAMES_ZH)
        tell = expand(rng, "[我叫|我是|我的名字是|你好，我叫|叫我]{n}[。|！|]", n=name)
        ask = expand(rng, "[我叫什么|我叫什么名字|我的名字是什么|你知道我的名字吗|我是谁][？|]")
        turns = ((tell, f"很高兴认识你，{name}！"), (ask, f"你叫{name}。"))
    if rng.random() < 0.3:
        return Exchange("memory", language, normal(tell), turns[:1], (name,))
    return Exchange("memory", language, normal(tell + ask), turns, (name,))


def _liking(rng: random.Random, language: Language) -> Exchange:
    liked = rng.choice(_LIKED)
    if language == "en":
        word = liked[0]
        tell = expand(rng, "I [like|love|really like] {w}[.|!|]", w=word)
        ask = expand(rng, "[What do I like|What did I say I like|Do you remember what I like][?|]")
        turns = ((tell, f"So you like {word}. Good to know!"), (ask, f"You like {word}."))
    else:
        word = liked[1]
        tell = expand(rng, "我[喜欢|很喜欢|最喜欢]{w}[。|！|]", w=word)
        ask = expand(rng, "[我喜欢什么|我刚才说我喜欢什么|你记得我喜欢什么吗][？|]")
        turns = ((tell, f"原来你喜欢{word}，我记住了。"), (ask, f"你喜欢{word}。"))
    return Exchange("memory", language, normal(tell + ask), turns, (word,))


def _again(rng: random.Random, language: Language) -> Exchange:
    index = language == "zh"
    words = [
        rng.choice(list(rng.choice(list(PAIRS.values())).items()))[index]
        for _ in range(rng.randint(1, 4))
    ]
    if language == "en":
        text = " ".join(words)
        question = expand(
            rng, "[Say|Repeat|Repeat after me:|Please say|Please repeat:] {t}[.|]", t=text
        )
    else:
        text = "".join(words) if rng.random() < 0.5 else "、".join(words)
        question = expand(rng, "[请说|重复|跟我说|请重复|跟我念]：{t}[。|]", t=text)
    return Exchange("memory", language, normal(question), ((question, text),), (text,))
