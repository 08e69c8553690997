"""What LLMOS is: its parts and ideas, each asked about in many ways."""
# ruff: noqa: E501 - phrases stay on one line

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.pilot.grammar import Exchange, Language, expand, normal


@dataclass(frozen=True, slots=True)
class Idea:
    """A thing of LLMOS: its names in English and Chinese, what to say of it, what must be said."""

    english: tuple[str, ...]
    chinese: tuple[str, ...]
    answer_en: str
    answer_zh: str
    expected_en: tuple[str, ...]
    expected_zh: tuple[str, ...]


IDEAS = (
    Idea(
        ("a job",),
        ("作业", "任务"),
        "A job is long work such as training or evaluation. LLMOS can suspend it and go on later.",
        "作业是训练、评估这类长时间的工作。LLMOS 可以暂停它，以后再继续。",
        ("training",),
        ("训练",),
    ),
    Idea(
        ("a request",),
        ("请求",),
        "A request is one call to a model, such as a chat message. It gets its answer as a stream.",
        "请求是对模型的一次调用，比如一条聊天消息。回答以流的形式返回。",
        ("call to a model",),
        ("调用",),
    ),
    Idea(
        ("a process",),
        ("进程",),
        "A process is what LLMOS runs: a request or a job. `llmos ps` lists the processes.",
        "进程是 LLMOS 运行的东西：请求或作业。`llmos ps` 会列出进程。",
        ("request or a job",),
        ("请求或作业",),
    ),
    Idea(
        ("a driver",),
        ("驱动", "驱动程序"),
        "A driver connects LLMOS to one engine, as a device driver connects a computer to a device.",
        "驱动把 LLMOS 和一个引擎连接起来，就像设备驱动连接电脑和设备。",
        ("engine",),
        ("引擎",),
    ),
    Idea(
        ("an engine",),
        ("引擎",),
        "An engine is the software that computes a model. A driver connects it to LLMOS.",
        "引擎是计算模型的软件，由驱动连接到 LLMOS。",
        ("computes",),
        ("计算",),
    ),
    Idea(
        ("a worker",),
        ("工作进程",),
        "A worker is a separate process that holds one model. If it dies, LLMOS starts a new one.",
        "工作进程是一个独立的进程，装着一个模型。它坏了，LLMOS 会再启动一个。",
        ("one model",),
        ("一个模型",),
    ),
    Idea(
        ("a replica",),
        ("副本",),
        "A replica is a model that is loaded in memory and ready to answer.",
        "副本是已经装进内存、可以回答的模型。",
        ("loaded",),
        ("内存",),
    ),
    Idea(
        ("the kernel",),
        ("内核",),
        "The kernel is the heart of LLMOS. Every request and job passes through it, and it decides "
        "what runs next.",
        "内核是 LLMOS 的核心。每个请求和作业都经过它，由它决定下一步运行什么。",
        ("decides",),
        ("决定",),
    ),
    Idea(
        ("the scheduler",),
        ("调度器",),
        "The scheduler decides which request or job runs next, by class, fair share and deadline.",
        "调度器按类别、公平和期限决定下一步运行哪个请求或作业。",
        ("class",),
        ("类别",),
    ),
    Idea(
        ("a class", "a service class"),
        ("类别", "服务类别"),
        "A class says how urgent a request is. There are three: interactive, default and batch.",
        "类别表示请求有多急。一共有三种：interactive、default 和 batch。",
        ("interactive", "batch"),
        ("interactive", "batch"),
    ),
    Idea(
        ("the ledger", "the memory ledger"),
        ("账本", "内存账本"),
        "The ledger is where LLMOS keeps account of memory: which model uses how much, and where.",
        "账本是 LLMOS 记录内存的地方：哪个模型用了多少，在哪里。",
        ("memory",),
        ("内存",),
    ),
    Idea(
        ("the registry",),
        ("注册表", "仓库"),
        "The registry stores models and datasets, with their names and versions.",
        "注册表保存模型和数据集，以及它们的名字和版本。",
        ("models",),
        ("模型",),
    ),
    Idea(
        ("a snapshot",),
        ("快照",),
        "A snapshot is the saved state of a suspended request, so that it can go on exactly.",
        "快照是暂停的请求保存下来的状态，让它以后能准确地继续。",
        ("saved state",),
        ("状态",),
    ),
    Idea(
        ("a stream",),
        ("流",),
        "A stream carries an answer piece by piece. It always ends with exactly one last event.",
        "流一段一段地传送回答，最后总有且只有一个结束事件。",
        ("piece by piece",),
        ("一段一段",),
    ),
    Idea(
        ("a tenant",),
        ("租户",),
        "A tenant is a group of users with its own keys, models and limits.",
        "租户是一组用户，有自己的密钥、模型和限额。",
        ("users",),
        ("用户",),
    ),
    Idea(
        ("a key", "an API key"),
        ("密钥",),
        "A key proves who you are. Make one with `llmos key add NAME --tenant T`.",
        "密钥证明你是谁。用 `llmos key add NAME --tenant T` 创建一个。",
        ("llmos key add",),
        ("llmos key add",),
    ),
    Idea(
        ("the token", "the admin token"),
        ("令牌", "管理员令牌"),
        "The admin token is made at the first start and kept in the file `token` of the LLMOS home.",
        "管理员令牌在第一次启动时生成，保存在 LLMOS 主目录的 `token` 文件里。",
        ("file",),
        ("文件",),
    ),
    Idea(
        ("the home folder", "LLMOS_HOME", "the LLMOS home"),
        ("主目录", "LLMOS_HOME"),
        "LLMOS keeps all its state in one folder, LLMOS_HOME, by default `~/.llmos`.",
        "LLMOS 把所有状态放在一个目录 LLMOS_HOME 里，默认是 `~/.llmos`。",
        ("~/.llmos",),
        ("~/.llmos",),
    ),
    Idea(
        ("a model", "a language model"),
        ("模型", "语言模型"),
        "A language model is a program that has learned from text and continues it, word by word.",
        "语言模型是从文字中学习的程序，一个词一个词地续写。",
        ("text",),
        ("文字",),
    ),
)

_ABOUT_EN = (
    "What is {x}[ in LLMOS| here|][?|]",
    "What does [LLMOS mean by|it mean,] {x}[?|]",
    "[Explain|Please explain|Describe|Tell me about|Define] {x}[ in LLMOS|][.|]",
    "[What is {x} for|What is the use of {x}|Why is there {x}][?|]",
    "[I don't understand what {x} is|I want to know about {x}|Can you explain {x}][.|?|]",
)
_ABOUT_ZH = (
    "[什么是{x}|{x}是什么|{x}是什么意思|{x}是做什么的|{x}有什么用][？|]",
    "LLMOS [里|中]的{x}是[什么|什么意思][？|]",
    "[解释一下{x}|请解释{x}|介绍一下{x}|说说{x}|告诉我什么是{x}][。|]",
    "[我不懂什么是{x}|我想了解{x}|能解释一下{x}吗][。|？|]",
)

_WHAT_EN = (
    "What is [LLMOS|llmos|LLMOS exactly|this LLMOS|this system][?|]",
    "[What's|What does] LLMOS[ do| mean|][?|]",
    "[Tell me about|Explain|Describe|Introduce|Please explain] LLMOS[.|]",
    "[What is LLMOS for|Why do I need LLMOS|What is the use of LLMOS|What does LLMOS do][?|]",
    "[I want to know about LLMOS|Can you explain LLMOS|What do you know about LLMOS][.|?|]",
)
_WHAT_ZH = (
    "LLMOS[ 是什么|是什么| 是什么意思| 是做什么的| 有什么用| 能做什么][？|]",
    "什么是[ LLMOS|LLMOS][？|]",
    "[介绍一下|解释一下|说说|请介绍|请解释|跟我讲讲] LLMOS[。|]",
    "[这个系统是什么|我想了解 LLMOS|你知道 LLMOS 吗|为什么需要 LLMOS][？|。|]",
)
_LLMOS_EN = (
    "LLMOS is an operating system for language models. It shares engines, memory and tokens among "
    "requests and jobs, and keeps them safe."
)
_LLMOS_ZH = "LLMOS 是语言模型的操作系统。它让请求和作业共享引擎、内存和词元，并保证安全。"

# asked in its own words each: question, answer, what must be in it
OTHER_EN = (
    (
        "[What is the licence of LLMOS|Is LLMOS free|Is LLMOS open source|Which license does LLMOS use]"
        "[?|]",
        "LLMOS is open source, under the Apache-2.0 licence.",
        ("Apache-2.0",),
    ),
    (
        "[Which|What] [address|port|URL] does [LLMOS|the server|it] [use|listen on|answer on][?|]",
        "By default the server answers on `http://127.0.0.1:8400`.",
        ("8400",),
    ),
    (
        "[Can I use the OpenAI client|Does LLMOS work with the OpenAI client|Is the API like OpenAI's]"
        "[?|]",
        "Yes. LLMOS speaks the OpenAI API: chat completions, completions and models.",
        ("Yes", "OpenAI"),
    ),
    (
        "[Which|What] Python [do I need|does LLMOS need|version is needed][?|]",
        "LLMOS needs Python 3.11, 3.12 or 3.13.",
        ("3.11",),
    ),
    (
        "[Do I need a GPU|Does LLMOS need a GPU|Can LLMOS run without a GPU|Does it run on a CPU][?|]",
        "No GPU is needed. LLMOS runs on a CPU too.",
        ("CPU",),
    ),
    (
        "[What happens when a worker dies|What if a worker crashes|A worker was killed, what now][?|]",
        "Its streams end with an error, nobody else notices, and LLMOS starts a new worker.",
        ("new worker",),
    ),
    (
        "[How do I install LLMOS|How can I install it|How do I set up LLMOS][?|]",
        "Clone the repository and type `make run`, or use `pip install llmos`.",
        ("make run",),
    ),
    (
        "[What drivers are there|Which drivers does LLMOS have|List the drivers][?|.|]",
        "The first drivers are `echo`, for tests, and `native`, which runs real models.",
        ("echo", "native"),
    ),
)
OTHER_ZH = (
    (
        "[LLMOS 用什么许可证|LLMOS 免费吗|LLMOS 是开源的吗|许可证是什么][？|]",
        "LLMOS 是开源的，许可证是 Apache-2.0。",
        ("Apache-2.0",),
    ),
    (
        "[服务器|LLMOS ]的[地址|端口|网址]是[什么|多少][？|]",
        "服务器默认的地址是 `http://127.0.0.1:8400`。",
        ("8400",),
    ),
    (
        "[能用 OpenAI 客户端吗|LLMOS 支持 OpenAI 接口吗|可以用 OpenAI 的客户端吗][？|]",
        "可以。LLMOS 支持 OpenAI 接口：聊天、补全和模型。",
        ("可以", "OpenAI"),
    ),
    (
        "[需要什么 Python|LLMOS 需要哪个 Python 版本|要用哪个版本的 Python][？|]",
        "LLMOS 需要 Python 3.11、3.12 或 3.13。",
        ("3.11",),
    ),
    (
        "[需要显卡吗|LLMOS 需要 GPU 吗|没有 GPU 能运行吗|能在 CPU 上运行吗][？|]",
        "不需要 GPU，LLMOS 也能在 CPU 上运行。",
        ("CPU",),
    ),
    (
        "[工作进程坏了怎么办|工作进程死了会怎样|如果工作进程崩溃呢][？|]",
        "它的流以错误结束，别的不受影响，LLMOS 会启动新的工作进程。",
        ("新的工作进程",),
    ),
    (
        "[怎么安装 LLMOS|如何安装 LLMOS|LLMOS 怎么装][？|]",
        "克隆仓库后输入 `make run`，或者用 `pip install llmos`。",
        ("make run",),
    ),
    (
        "[有哪些驱动|LLMOS 有什么驱动|列出驱动][？|。|]",
        "最早的驱动有 `echo`（用于测试）和 `native`（运行真正的模型）。",
        ("echo", "native"),
    ),
)


def sample(rng: random.Random, language: Language) -> Exchange:
    """One question about LLMOS."""
    english = language == "en"
    draw = rng.random()
    if draw < 0.25:
        question = expand(rng, rng.choice(_WHAT_EN if english else _WHAT_ZH))
        answer = _LLMOS_EN if english else _LLMOS_ZH
        expected: tuple[str, ...] = ("operating system",) if english else ("操作系统",)
    elif draw < 0.45:
        template, answer, expected = rng.choice(OTHER_EN if english else OTHER_ZH)
        question = expand(rng, template)
    else:
        idea = rng.choice(IDEAS)
        name = rng.choice(idea.english if english else idea.chinese)
        question = expand(rng, rng.choice(_ABOUT_EN if english else _ABOUT_ZH), x=name)
        answer = idea.answer_en if english else idea.answer_zh
        expected = idea.expected_en if english else idea.expected_zh
    return Exchange("system", language, normal(question), ((question, answer),), expected)
