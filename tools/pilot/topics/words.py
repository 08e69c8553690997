"""Words: translation between English and Chinese, opposites, colours, days, months, kinds."""
# ruff: noqa: SIM905 - phrases stay on one line, word lists read as words

from __future__ import annotations

import random

from tools.pilot.grammar import Exchange, Language, expand, normal

PAIRS: dict[str, dict[str, str]] = {
    "colour": {
        "red": "红色", "blue": "蓝色", "green": "绿色", "yellow": "黄色", "black": "黑色",
        "white": "白色", "orange": "橙色", "purple": "紫色", "pink": "粉色", "brown": "棕色",
        "grey": "灰色",
    },
    "animal": {
        "cat": "猫", "dog": "狗", "bird": "鸟", "fish": "鱼", "horse": "马", "cow": "牛",
        "sheep": "羊", "rabbit": "兔子", "mouse": "老鼠", "lion": "狮子", "tiger": "老虎",
        "bear": "熊", "monkey": "猴子", "elephant": "大象", "duck": "鸭子", "frog": "青蛙",
    },
    "fruit": {
        "apple": "苹果", "banana": "香蕉", "pear": "梨", "grape": "葡萄", "peach": "桃子",
        "lemon": "柠檬", "strawberry": "草莓", "watermelon": "西瓜",
    },
    "food": {
        "rice": "米饭", "bread": "面包", "egg": "鸡蛋", "soup": "汤", "cake": "蛋糕",
        "noodles": "面条", "milk": "牛奶", "tea": "茶", "water": "水", "coffee": "咖啡",
    },
    "family member": {
        "mother": "妈妈", "father": "爸爸", "brother": "兄弟", "sister": "姐妹",
        "grandmother": "奶奶", "grandfather": "爷爷", "son": "儿子", "daughter": "女儿",
    },
    "part of the body": {
        "hand": "手", "foot": "脚", "head": "头", "eye": "眼睛", "ear": "耳朵", "nose": "鼻子",
        "mouth": "嘴",
    },
    "thing": {
        "book": "书", "table": "桌子", "chair": "椅子", "door": "门", "window": "窗户",
        "house": "房子", "car": "汽车", "bicycle": "自行车", "computer": "电脑", "phone": "手机",
        "pen": "笔", "school": "学校", "city": "城市", "road": "路", "tree": "树", "flower": "花",
        "sun": "太阳", "moon": "月亮", "star": "星星", "rain": "雨", "snow": "雪", "wind": "风",
        "sea": "大海", "mountain": "山", "river": "河", "friend": "朋友", "teacher": "老师",
        "doctor": "医生", "child": "孩子", "day": "白天", "night": "夜晚", "fire": "火",
    },
    "verb": {
        "eat": "吃", "drink": "喝", "sleep": "睡觉", "run": "跑", "walk": "走", "read": "读",
        "write": "写", "speak": "说", "listen": "听", "see": "看", "sing": "唱歌", "love": "爱",
    },
    "adjective": {
        "big": "大", "small": "小", "hot": "热", "cold": "冷", "fast": "快", "slow": "慢",
        "good": "好", "bad": "坏", "new": "新", "old": "旧", "long": "长", "short": "短",
        "happy": "高兴", "sad": "难过", "high": "高", "low": "低", "early": "早", "late": "晚",
        "heavy": "重", "light": "轻", "open": "开", "closed": "关", "left": "左", "right": "右",
        "up": "上", "down": "下", "strong": "强", "weak": "弱", "clean": "干净", "dirty": "脏",
        "full": "满", "empty": "空", "rich": "富", "poor": "穷", "easy": "容易", "hard": "难",
        "near": "近", "far": "远", "true": "真", "false": "假", "inside": "里面",
        "outside": "外面",
    },
    "number": {
        "one": "一", "two": "二", "three": "三", "four": "四", "five": "五", "six": "六",
        "seven": "七", "eight": "八", "nine": "九", "ten": "十",
    },
    "phrase": {
        "hello": "你好", "thank you": "谢谢", "goodbye": "再见", "good morning": "早上好",
        "good night": "晚安", "I love you": "我爱你", "how are you": "你好吗",
        "see you tomorrow": "明天见", "I am hungry": "我饿了", "sorry": "对不起", "yes": "是",
        "no": "不",
    },
}  # fmt: skip
OPPOSITES = (
    "big small|hot cold|fast slow|good bad|new old|long short|happy sad|high low|early late|"
    "heavy light|open closed|left right|up down|strong weak|clean dirty|full empty|rich poor|"
    "easy hard|near far|true false|inside outside"
)
DAYS = tuple(zip(
    "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split(),
    "星期一 星期二 星期三 星期四 星期五 星期六 星期日".split(), strict=True,
))  # fmt: skip
MONTHS = tuple(zip(
    "January February March April May June July August September October November "
    "December".split(),
    "一月 二月 三月 四月 五月 六月 七月 八月 九月 十月 十一月 十二月".split(), strict=True,
))  # fmt: skip
KINDS_ZH = {"colour": "颜色", "animal": "动物", "fruit": "水果"}
FACTS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("What colour is the [sky|clear sky]", "The sky is blue.", "blue",
     "天空是什么颜色", "天空是蓝色的。", "蓝色"),
    ("What colour is [grass|the grass]", "Grass is green.", "green",
     "草是什么颜色", "草是绿色的。", "绿色"),
    ("What colour is [snow|the snow]", "Snow is white.", "white",
     "雪是什么颜色", "雪是白色的。", "白色"),
    ("What colour is [blood|a ripe strawberry]", "It is red.", "red",
     "[血|草莓]是什么颜色", "是红色的。", "红色"),
    ("What colour is a [banana|ripe banana|lemon]", "It is yellow.", "yellow",
     "[香蕉|柠檬]是什么颜色", "是黄色的。", "黄色"),
    ("How many days are [there in|in] a week", "A week has seven days.", "seven",
     "[一周|一个星期]有几天", "一周有七天。", "七天"),
    ("How many months are [there in|in] a year", "A year has twelve months.", "twelve",
     "一年有[几|多少]个月", "一年有十二个月。", "十二"),
    ("How many hours are [there in|in] a day", "A day has 24 hours.", "24",
     "一天有[几|多少]个小时", "一天有 24 个小时。", "24"),
    ("How many minutes are [there in|in] an hour", "An hour has 60 minutes.", "60",
     "一小时有[几|多少]分钟", "一小时有 60 分钟。", "60"),
    ("How many seconds are [there in|in] a minute", "A minute has 60 seconds.", "60",
     "一分钟有[几|多少]秒", "一分钟有 60 秒。", "60"),
    ("How many legs does a [cat|dog|horse|cow] have", "It has four legs.", "four",
     "[猫|狗|马|牛]有几条腿", "有四条腿。", "四"),
    ("How many legs does a [bird|duck] have", "It has two legs.", "two",
     "[鸟|鸭子]有几条腿", "有两条腿。", "两"),
    ("How many seasons are [there|there in a year]", "There are four: spring, summer, autumn and "
     "winter.", "four", "一年有几个季节", "有四个：春、夏、秋、冬。", "四"),
    ("[Where|In which direction] does the sun rise", "The sun rises in the east.", "east",
     "太阳从哪[里|边]升起", "太阳从东边升起。", "东"),
    ("What [is|do we call] frozen water", "Frozen water is ice.", "ice",
     "水结冰后是什么", "是冰。", "冰"),
    ("What do [cows|sheep] eat", "They eat grass.", "grass",
     "[牛|羊]吃什么", "吃草。", "草"),
    ("What do bees make", "Bees make honey.", "honey", "蜜蜂酿什么", "蜜蜂酿蜜。", "蜜"),
)  # fmt: skip

_EN_TO_ZH = (
    "[How do you say|How do I say|How to say|What is] [{e}|'{e}'|\"{e}\"] in Chinese[?|]",
    "[Translate|Please translate] [{e}|'{e}'|\"{e}\"] [to|into] Chinese[.|]",
    "[What is the Chinese word for|What is the Chinese for] {e}[?|]",
)
_ZH_TO_EN_EN = (
    "What does [{z}|'{z}'|\"{z}\"] mean[ in English|][?|]",
    "[Translate|Please translate] {z} [to|into] English[.|]",
)
_ZH_TO_EN = (
    "[{z}|“{z}”][用英语怎么说|的英文是什么|英语怎么说|用英文怎么说|的英语是什么][？|]",
    "[翻译成英文|请翻译成英语|把这个词翻译成英语]：{z}[。|]",
)
_EN_TO_ZH_ZH = (
    "{e} [是什么意思|用中文怎么说|的中文是什么|中文怎么说|翻译成中文是什么][？|]",
    "[翻译成中文|请翻译成中文]：{e}[。|]",
)


def sample(rng: random.Random, language: Language) -> Exchange:
    """One question about words or simple facts."""
    draw = rng.random()
    if draw < 0.45:
        return _translate(rng, language)
    if draw < 0.6:
        return _opposite(rng, language)
    if draw < 0.75:
        return _calendar(rng, language)
    if draw < 0.92:
        return _fact(rng, language)
    return _kind(rng, language)


def _made(language: Language, question: str, answer: str, expected: str) -> Exchange:
    return Exchange("words", language, normal(question), ((question, answer),), (expected,))


def _translate(rng: random.Random, language: Language) -> Exchange:
    group = rng.choice([g for g, words in PAIRS.items() for _ in words])
    e, z = rng.choice(list(PAIRS[group].items()))
    to_chinese = rng.random() < 0.6
    if language == "en":
        question = expand(rng, rng.choice(_EN_TO_ZH if to_chinese else _ZH_TO_EN_EN), e=e, z=z)
        answer = f'"{e}" in Chinese is {z}.' if to_chinese else f'{z} means "{e}" in English.'
    else:
        question = expand(rng, rng.choice(_EN_TO_ZH_ZH if to_chinese else _ZH_TO_EN), e=e, z=z)
        answer = f"“{e}”的中文是{z}。" if to_chinese else f"“{z}”的英文是 {e}。"
    return _made(language, question, answer, z if to_chinese else e)


def _opposite(rng: random.Random, language: Language) -> Exchange:
    pair = rng.choice(OPPOSITES.split("|")).split()
    rng.shuffle(pair)
    if language == "en":
        a, b = pair
        template = (
            "[What is the opposite of|What's the opposite of|Give me the opposite of|"
            "Name the opposite of|Opposite of] [{a}|'{a}'|\"{a}\"][?|]"
        )
        return _made("en", expand(rng, template, a=a), f"The opposite of {a} is {b}.", f"is {b}")
    a, b = (PAIRS["adjective"][word] for word in pair)
    template = "[{a}|“{a}”]的[反义词是什么|反面是什么|相反词是什么|反义词][？|]"
    return _made("zh", expand(rng, template, a=a), f"“{a}”的反义词是“{b}”。", f"“{b}”")


def _calendar(rng: random.Random, language: Language) -> Exchange:
    names = [pair[language == "zh"] for pair in rng.choice((DAYS, MONTHS))]
    days = len(names) == len(DAYS)
    if rng.random() < 0.15:
        joined = (", " if language == "en" else "、").join(names)
        if language == "en":
            which = "days of the week" if days else "months of the year"
            question = expand(rng, f"[List|Name|Tell me|What are] [all |]the {which}[.|]")
            return _made("en", question, joined + ".", joined)
        question = expand(rng, f"[列出|说出|告诉我]{'一周的七天' if days else '一年的月份'}[。|]")
        return _made("zh", question, joined + "。", joined)
    i, after = rng.randrange(len(names)), rng.random() < 0.6
    a, b = names[i], names[(i + (1 if after else -1)) % len(names)]
    if language == "en":
        word = "after" if after else "before"
        kind = "day" if days else "month"
        template = "[What|Which] {kind} [comes|is] [right |]{word} {a}[?|]"
        question = expand(rng, template, a=a, word=word, kind=kind)
        return _made("en", question, f"{b} comes {word} {a}.", f"{b} comes")
    word = "后面" if after else "前面"
    question = expand(rng, "{a}[的|]{word}是[什么|哪个|哪一个][？|]", a=a, word=word)
    return _made("zh", question, f"{a}{word}是{b}。", f"是{b}")


def _fact(rng: random.Random, language: Language) -> Exchange:
    ask_en, say_en, has_en, ask_zh, say_zh, has_zh = rng.choice(FACTS)
    if language == "en":
        return _made("en", expand(rng, ask_en + "[?|]"), say_en, has_en)
    return _made("zh", expand(rng, ask_zh + "[？|]"), say_zh, has_zh)


def _kind(rng: random.Random, language: Language) -> Exchange:
    kind = rng.choice(list(KINDS_ZH))
    word, chinese = rng.choice(list(PAIRS[kind].items()))
    article = "an" if kind[0] == "a" else "a"
    one = "an" if word[0] in "aeiou" else "a"
    name = word if kind == "colour" else f"{one} {word}"
    if language == "en":
        question = expand(rng, f"[What kind of thing is|What is] {name}[?|]")
        return _made("en", question, f"{name[0].upper()}{name[1:]} is {article} {kind}.", kind)
    question = expand(rng, f"{chinese}是[什么|什么东西|哪一类][？|]")
    return _made("zh", question, f"{chinese}是一种{KINDS_ZH[kind]}。", KINDS_ZH[kind])
