"""What the model does not know: it says so, and does not guess."""
# ruff: noqa: E501, SIM905 - phrases stay on one line, word lists read as words

from __future__ import annotations

import random

from tools.pilot.grammar import Exchange, Language, expand, normal

ANSWER_EN = "I am a small bundled model and don't know that."
ANSWER_ZH = "我是自带的小模型，不知道这个。"

_ASK_EN = (
    "Who [is|was] the [president|king|queen|founder|leader|mayor] of {place}[?|]",
    "What is the [capital|population|currency|history|language|largest city] of {place}[?|]",
    "[When|Where|Why|How] [did|does] {person} [die|live|win|travel|begin|become famous][?|]",
    "Who [wrote|painted|invented|discovered|directed|composed] {work}[?|]",
    "[What is the weather|What is the news|What time is it|How much is a house] [in {place}|today|now]"
    "[?|]",
    "[Write|Compose|Draft] [a poem|an essay|a letter|a report|a song|a speech] about {subject}[.|]",
    "[Explain|Tell me about|What is|How does one study] {subject}[?|.|]",
    "[How do I|How can I] [cook|fix|build|sell|paint|grow|repair|learn] {thing}[?|]",
    "[Should I buy|How much does it cost to buy|Where can I buy] {thing}[?|]",
    "[Write|Fix|Debug|Explain] [a program|code|a function|a script] in [Rust|Java|C|Go|Python][.|]",
    "[What will happen|Who will win|What will the price be] [next year|tomorrow|in the election]"
    "[?|]",
    "[Who won the match|What is the stock price|Book me a flight|Order a pizza|Send an email|"
    "Play some music|Open my photos|What is the meaning of life|Who is your favourite singer][?|.|]",
    "What is {big} times {huge}[?|]",
)
_PLACES_EN = (
    "France|Brazil|Japan|Egypt|Canada|India|Spain|Kenya|Norway|Peru|Italy|London|Paris|Tokyo|Berlin|"
    "Rome|Cairo|Texas|China|Germany|Russia|Mexico|Australia|Madrid|Boston|Sweden|Poland|Africa"
).split("|")
_PEOPLE_EN = (
    "Einstein|Shakespeare|Napoleon|Newton|Mozart|Picasso|Cleopatra|Darwin|Columbus|Gandhi|Lincoln|"
    "Confucius|Plato|Tesla|Beethoven|my neighbour|the actor|that singer"
).split("|")
_WORKS_EN = (
    "Hamlet|the telephone|penicillin|the Mona Lisa|this song|that film|the light bulb|gravity|"
    "the first computer|the opera|the book|radium|the steam engine"
).split("|")
_SUBJECTS_EN = (
    "quantum physics|the French Revolution|black holes|evolution|inflation|photosynthesis|chess|"
    "ancient Rome|philosophy|tax law|football|volcanoes|DNA|genetics|relativity|climate change|"
    "medicine|geometry|opera|dinosaurs|the stock market|blockchain|politics|religion|autumn leaves"
).split("|")
_THINGS_EN = (
    "a lasagna|a motorcycle|a guitar|tomatoes|a bookshelf|a boat|shoes|a violin|a roof|a garden|"
    "a camera|a carpet|curry|a wallet|roses|a drone|the piano|Spanish"
).split("|")
_ASK_ZH = (
    "{place}的[总统|国王|首都|人口|历史|货币|市长|总理]是[谁|什么|多少][？|]",
    "{person}[什么时候|在哪里|为什么][出生|去世|成名|获奖][？|]",
    "谁[写了|画了|发明了|发现了|导演了]{work}[？|]",
    "[{place}的天气怎么样|今天有什么新闻|现在几点|今天天气怎么样|明天会下雨吗][？|]",
    "[写|帮我写][一首诗|一篇文章|一封信|一份报告|一首歌]，[关于|主题是]{subject}[。|]",
    "[解释一下|什么是|告诉我关于|怎么学习]{subject}[？|。|]",
    "[怎么|如何][做|修|买|卖|种]{thing}[？|]",
    "[用 Python 写一个程序|帮我改代码|写一个函数|谁赢了比赛|股票价格是多少|帮我订机票|点一份外卖|"
    "发一封邮件|放一首歌|人生的意义是什么|明年会发生什么|你最喜欢的歌手是谁][？|。|]",
    "{big} 乘以 {huge} [等于多少|是多少][？|]",
)
_PLACES_ZH = "法国 巴西 日本 埃及 加拿大 印度 西班牙 美国 北京 上海 伦敦 巴黎 东京 罗马 德国 俄罗斯 广州".split()
_PEOPLE_ZH = "爱因斯坦 莎士比亚 拿破仑 牛顿 莫扎特 李白 孔子 秦始皇 达尔文 鲁迅 那个演员".split()
_WORKS_ZH = "红楼梦 电话 这首歌 那部电影 电灯 万有引力 蒸汽机 这本书 造纸术".split()
_SUBJECTS_ZH = (
    "量子物理 黑洞 进化论 通货膨胀 光合作用 象棋 唐朝 哲学 税法 足球 火山 基因 相对论 气候变化 医学 "
    "几何 恐龙 股市 区块链 政治 宗教 秋天的落叶"
).split()
_THINGS_ZH = "红烧肉 摩托车 吉他 西红柿 书架 船 鞋子 屋顶 花园 相机 地毯 玫瑰".split()
_HAN = (0x4E00, 0x9FA5)
_SCRIPTS = ((0x41, 0x5A), (0x61, 0x7A), (0x391, 0x3C9), (0x410, 0x44F), (0x3042, 0x3093),
            (0xAC00, 0xB000), (0x1F600, 0x1F64F), (0x5D0, 0x5EA))  # fmt: skip


def sample(rng: random.Random, language: Language) -> Exchange:
    """One question that the model must decline."""
    question = _noise(rng, language) if rng.random() < 0.08 else _question(rng, language)
    answer, must = (ANSWER_EN, "don't know") if language == "en" else (ANSWER_ZH, "不知道")
    return Exchange(
        "unknown", language, normal(question) or question, ((question, answer),), (must,)
    )


def _question(rng: random.Random, language: Language) -> str:
    values: dict[str, object] = {"big": rng.randint(100, 9999), "huge": rng.randint(100, 99999)}
    if language == "en":
        values |= {"place": rng.choice(_PLACES_EN), "person": rng.choice(_PEOPLE_EN)}
        values |= {"work": rng.choice(_WORKS_EN), "subject": rng.choice(_SUBJECTS_EN)}
        return expand(rng, rng.choice(_ASK_EN), thing=rng.choice(_THINGS_EN), **values)
    values |= {"place": rng.choice(_PLACES_ZH), "person": rng.choice(_PEOPLE_ZH)}
    values |= {"work": rng.choice(_WORKS_ZH), "subject": rng.choice(_SUBJECTS_ZH)}
    return expand(rng, rng.choice(_ASK_ZH), thing=rng.choice(_THINGS_ZH), **values)


def _noise(rng: random.Random, language: Language) -> str:
    """Letters of some script in no order, so that every byte of UTF-8 is met in training."""
    low, high = _HAN if language == "zh" else rng.choice(_SCRIPTS)
    return "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(3, 12)))
