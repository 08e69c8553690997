"""Tiny stories, told when asked for and as plain text."""
# ruff: noqa: E501 - phrases stay on one line, word lists read as words

from __future__ import annotations

import random

from tools.pilot.grammar import Exchange, Language, expand, normal
from tools.pilot.topics.memory import NAMES_EN, NAMES_ZH

ANIMALS = ("cat", "dog", "bird", "rabbit", "mouse", "bear", "duck", "frog", "monkey", "horse")
ANIMALS_ZH = ("猫", "狗", "鸟", "兔子", "老鼠", "熊", "鸭子", "青蛙", "猴子", "马")
_PLACES = (("in a small house", "小房子里"), ("near a river", "河边"), ("in a forest", "森林里"),
           ("on a hill", "山上"), ("in a garden", "花园里"))  # fmt: skip
_LOST = (("ball", "球"), ("hat", "帽子"), ("book", "书"), ("red kite", "红风筝"), ("key", "钥匙"))
_WHERE = (("under the table", "桌子下面"), ("behind a tree", "树后面"), ("in the grass", "草里"),
          ("near the door", "门边"))  # fmt: skip
_FRIEND = (
    ("an old man", "一位老爷爷"),
    ("a little girl", "一个小女孩"),
    ("a kind teacher", "一位老师"),
)

_EN = (
    "Once upon a time, a little {animal} named {name} lived {place}. One day {name} lost a {lost}. "
    "{name} was sad. Then {friend} came and helped. They found the {lost} {where}. {name} was happy "
    "again. The end.",
    "Once there was a {animal} named {name}. {name} lived {place} and was alone. One day {name} met "
    "{friend}. They shared bread and water and talked all day. From then on they were friends. "
    "The end.",
    "A {animal} named {name} wanted to see the sea. {name} walked for three days. It rained, but "
    "{name} did not stop. At last the sea was there, big and blue. {name} smiled. The end.",
)
_ZH = (
    "从前，有一只小{animal}叫{name}，住在{place}。有一天，{name}丢了{lost}，很难过。后来{friend}来帮忙，"
    "他们在{where}找到了{lost}。{name}又高兴了。故事讲完了。",
    "从前有一只{animal}叫{name}，住在{place}，很孤单。有一天，{name}遇到{friend}。他们一起吃面包、喝水，"
    "说了一天的话，成了朋友。故事讲完了。",
    "有一只{animal}叫{name}，想看大海。{name}走了三天，下雨了也没有停。最后大海到了，又大又蓝。"
    "{name}笑了。故事讲完了。",
)


def story(rng: random.Random, language: Language, animal: int, name: str) -> str:
    """One story about the animal of that number, bearing that name."""
    index = language == "zh"
    template = rng.choice(_ZH if index else _EN)
    return template.format(
        animal=(ANIMALS_ZH if index else ANIMALS)[animal],
        name=name,
        place=rng.choice(_PLACES)[index],
        lost=rng.choice(_LOST)[index],
        where=rng.choice(_WHERE)[index],
        friend=rng.choice(_FRIEND)[index],
    )


def sample(rng: random.Random, language: Language) -> Exchange:
    """A story asked for, perhaps about a certain animal, perhaps with a name."""
    animal = rng.randrange(len(ANIMALS))
    name = rng.choice(NAMES_EN if language == "en" else NAMES_ZH)
    draw = rng.random()
    if language == "en":
        about = ("", " about a {a}", " about a {a} named {n}")[min(2, int(draw * 3))]
        template = (
            "[Tell me|Tell|Write|I want|Can you tell me] a [|short |little |tiny ]story"
            + about
            + "[.|]"
        )
        end = "The end."
    else:
        about = ("", "关于{a}的", "关于叫{n}的{a}的")[min(2, int(draw * 3))]
        template = "[讲一个|给我讲一个|说一个|我想听一个]" + about + "[|小|短]故事[。|吧|]"
        end = "故事讲完了"
    chosen = (ANIMALS if language == "en" else ANIMALS_ZH)[animal]
    question = expand(rng, template, a=chosen, n=name)
    expected = (end,) + ((chosen,) if "{a}" in about else ()) + ((name,) if "{n}" in about else ())
    turn = (question, story(rng, language, animal, name))
    return Exchange("stories", language, normal(question), (turn,), expected)


def plain(rng: random.Random, language: Language) -> str:
    """A story with no one asking."""
    name = rng.choice(NAMES_EN if language == "en" else NAMES_ZH)
    return story(rng, language, rng.randrange(len(ANIMALS)), name)
