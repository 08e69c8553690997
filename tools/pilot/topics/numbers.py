"""Small sums, comparing, counting, and number words."""
# ruff: noqa: SIM905 - phrases stay on one line, word lists read as words

from __future__ import annotations

import random

from tools.pilot.grammar import Exchange, Language, expand

WORDS_EN = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
WORDS_ZH = (
    "零 一 二 三 四 五 六 七 八 九 十 十一 十二 十三 十四 十五 十六 十七 十八 十九 二十"
).split()

_ASK_EN = (
    "What is {a}{op}{b}[?|]",
    "[How much is|Calculate|Compute|What's|Solve] {a}{op}{b}[?|]",
    "{a}{op}{b}[ =|=| = ?|?|]",
    "[Can you tell me|Do you know] what {a}{op}{b} is[?|]",
)
_ASK_ZH = (
    "{a}{op}{b}[等于多少|等于几|是多少|是几|=|=?|][？|]",
    "[计算|算一下|请计算|帮我算] {a}{op}{b}[。|]",
)
_OPS_EN = {
    "+": (" plus ", " + ", "+"),
    "-": (" minus ", " - ", "-"),
    "*": (" times ", " * ", " x "),
}
_OPS_ZH = {"+": ("加", " + ", "+"), "-": ("减", " - ", "-"), "*": ("乘以", "乘", " * ", "×")}
_SIGN = {"+": "+", "-": "-", "*": "×"}


def sample(rng: random.Random, language: Language) -> Exchange:
    """One question about numbers."""
    draw = rng.random()
    if draw < 0.7:
        return _sum(rng, language)
    if draw < 0.82:
        return _count(rng, language)
    if draw < 0.92:
        return _compare(rng, language)
    return _neighbour(rng, language)


def _sum(rng: random.Random, language: Language) -> Exchange:
    op = rng.choice("++--*")
    top = 9 if op == "*" else rng.choice((10, 20))
    a, b = rng.randint(0, top), rng.randint(0, top)
    if op == "-" and a < b:
        a, b = b, a
    value = {"+": a + b, "-": a - b, "*": a * b}[op]
    english = language == "en"
    words = (WORDS_EN if english else WORDS_ZH) if rng.random() < 0.12 else None
    shown = (words[a], words[b]) if words else (str(a), str(b))
    sign = rng.choice((_OPS_EN if english else _OPS_ZH)[op][: 1 if words else None])
    question = expand(
        rng, rng.choice(_ASK_EN if english else _ASK_ZH), a=shown[0], b=shown[1], op=sign
    )
    answer = f"{a} {_SIGN[op]} {b} = {value}"
    return Exchange("numbers", language, f"sum:{a}{op}{b}", ((question, answer),), (f"= {value}",))


def _count(rng: random.Random, language: Language) -> Exchange:
    first = 1 if rng.random() < 0.5 else rng.randint(2, 10)
    last = first + rng.randint(2, 10)
    numbers = [str(n) for n in range(first, last + 1)]
    backwards = rng.random() < 0.25
    if backwards:
        numbers.reverse()
    values = {"a": numbers[0], "b": numbers[-1]}
    from_one = first == 1 and not backwards and rng.random() < 0.5
    if language == "en":
        way = "down " if backwards else ""
        template = f"[Count|Please count|Can you count] from {{a}} {way}to {{b}}[.|?|]"
        if from_one:
            template = "[Count|Please count|Can you count] [up |]to {b}[.|?|]"
        answer = ", ".join(numbers) + "."
    else:
        way = "倒数到" if backwards else "数到"
        template = f"[从|请从|你能从] {{a}} {way} {{b}}[。|]"
        if from_one:
            template = "[数到|请数到] {b}[。|]"
        answer = "，".join(numbers) + "。"
    key = f"count:{numbers[0]}:{numbers[-1]}"
    return Exchange(
        "numbers", language, key, ((expand(rng, template, **values), answer),), (answer,)
    )


def _compare(rng: random.Random, language: Language) -> Exchange:
    a, b = rng.sample(range(31), 2)
    bigger = rng.random() < 0.6
    value = max(a, b) if bigger else min(a, b)
    if language == "en":
        word = "bigger" if bigger else "smaller"
        template = f"Which [number |]is {word}[,|:] {{a}} or {{b}}[?|]"
        answer = f"{value} is {word}."
    else:
        word = "大" if bigger else "小"
        template = f"{{a}} 和 {{b}} [哪个|哪个数]{word}[？|]"
        answer = f"{value} 比较{word}。"
    question = expand(rng, template, a=a, b=b)
    return Exchange("numbers", language, f"{word}:{a}:{b}", ((question, answer),), (answer[:-1],))


def _neighbour(rng: random.Random, language: Language) -> Exchange:
    n = rng.randint(1, 49)
    after = rng.random() < 0.6
    value = n + 1 if after else n - 1
    if language == "en":
        word = "after" if after else "before"
        question = expand(rng, f"[What|Which] number comes [right |]{word} {{n}}[?|]", n=n)
        answer = f"{value} comes {word} {n}."
    else:
        word = "后面" if after else "前面"
        question = expand(rng, f"{{n}} [{word}|的{word}]是[几|多少|什么数][？|]", n=n)
        answer = f"{n} {word}是 {value}。"
    return Exchange("numbers", language, f"{word}:{n}", ((question, answer),), (answer[:-1],))
