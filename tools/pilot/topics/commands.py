"""The `llmos` commands: what each does, and which one does what a person wants."""
# ruff: noqa: E501 - phrases stay on one line, word lists read as words

from __future__ import annotations

import random
from dataclasses import dataclass

from tools.pilot.grammar import Exchange, Language, expand, normal


@dataclass(frozen=True, slots=True)
class Command:
    """One command: its name, how to type it, what it does, the wishes that it answers."""

    name: str
    usage: str
    does_en: str
    does_zh: str
    wishes_en: tuple[str, ...]
    wishes_zh: tuple[str, ...]


COMMANDS = (
    Command(
        "serve",
        "llmos serve",
        "starts the server",
        "启动服务器",
        (
            "start the server",
            "start LLMOS",
            "launch the server",
            "bring the server up",
            "serve models",
        ),
        ("启动服务器", "启动 LLMOS", "开启服务", "把服务器跑起来"),
    ),
    Command(
        "run",
        "llmos run MODEL",
        "starts a chat with a model",
        "和模型聊天",
        (
            "chat with a model",
            "run a model",
            "talk to a model",
            "start a chat",
            "ask a model something",
        ),
        ("和模型聊天", "运行模型", "运行一个模型", "跟模型对话", "开始聊天"),
    ),
    Command(
        "pull",
        "llmos pull hf:org/name",
        "downloads a model into the registry",
        "把模型下载到注册表",
        (
            "pull a model",
            "download a model",
            "get a new model",
            "fetch a model",
            "add a model",
            "install a model",
        ),
        ("拉取模型", "下载模型", "下载一个模型", "获取新模型", "添加模型", "安装模型"),
    ),
    Command(
        "pull file",
        "llmos pull file:PATH",
        "adds a model from a folder",
        "从文件夹添加模型",
        (
            "import a model from a folder",
            "add a model from my disk",
            "use a local model folder",
            "pull a local model",
            "load a model from a file",
        ),
        ("从文件夹导入模型", "添加本地模型", "使用本地的模型文件夹", "从磁盘添加模型"),
    ),
    Command(
        "ls",
        "llmos ls",
        "lists the models you have",
        "列出已有的模型",
        (
            "list my models",
            "see which models I have",
            "list the models",
            "see all models",
            "find out what models are installed",
        ),
        ("列出模型", "查看有哪些模型", "看我有什么模型", "查看所有模型"),
    ),
    Command(
        "show",
        "llmos show MODEL",
        "shows the details of a model",
        "显示模型的详细信息",
        (
            "see the details of a model",
            "show a model",
            "look at a model's details",
            "find out more about a model",
            "see the size of a model",
        ),
        ("查看模型的详细信息", "显示一个模型", "看模型的大小", "查看模型信息"),
    ),
    Command(
        "rm",
        "llmos rm MODEL",
        "removes a model",
        "删除模型",
        (
            "remove a model",
            "delete a model",
            "get rid of a model",
            "free disk space",
            "erase an old model",
        ),
        ("删除模型", "删掉一个模型", "移除模型", "清理旧模型", "腾出磁盘空间"),
    ),
    Command(
        "ps",
        "llmos ps",
        "lists what is running",
        "列出正在运行的进程",
        (
            "see what is running",
            "list the processes",
            "list running requests",
            "see the running jobs",
            "find out what runs now",
        ),
        ("查看正在运行什么", "列出进程", "看有哪些请求在运行", "查看运行中的作业"),
    ),
    Command(
        "status",
        "llmos status",
        "shows how the server is doing",
        "显示服务器的状态",
        (
            "check the server",
            "see the status",
            "see if the server is well",
            "check the health",
            "know whether LLMOS is up",
        ),
        ("检查服务器", "查看状态", "看服务器是否正常", "查看服务器状态"),
    ),
    Command(
        "key",
        "llmos key add NAME --tenant T",
        "makes a key for a user",
        "为用户创建密钥",
        ("make a key", "add a key", "create an API key", "give a user access", "add a user"),
        ("创建密钥", "添加密钥", "新建一个密钥", "给用户访问权限", "添加用户"),
    ),
    Command(
        "config",
        "llmos config show",
        "shows the settings",
        "显示设置",
        ("see the settings", "show the configuration", "check my settings", "read the config"),
        ("查看设置", "显示配置", "看我的设置", "查看配置"),
    ),
)

_HOW_EN = (
    "How [do I|can I|do you|to|would I|should I] {wish}[?|]",
    "[What command do I use to|Which command lets me|What should I type to|How can one] {wish}[?|]",
    "[I want to|I would like to|I need to|Help me|Please help me] {wish}[.|]",
    "[Tell me how to|Show me how to|Explain how to|What is the command to] {wish}[.|?|]",
)
_HOW_ZH = (
    "[怎么|如何|怎样|我怎么|我该怎么|怎么才能|我要怎样]{wish}[？|]",
    "{wish}[用什么命令|要用哪个命令|的命令是什么|怎么做|该怎么做][？|]",
    "[我想|我要|我需要|帮我|请帮我|教我]{wish}[。|]",
)
_USE_EN = ("Use `{usage}`. It {does}.", "Type `{usage}`. It {does}.")
_USE_ZH = ("用 `{usage}`，它会{does}。", "输入 `{usage}`，它会{does}。")
_WHAT_EN = (
    "What does [`llmos {name}`|llmos {name}|the {name} command|`{name}`] do[?|]",
    "[Explain|Tell me about|What is] [`llmos {name}`|llmos {name}|the command {name}][.|?|]",
    "[What is llmos {name} for|What happens when I type llmos {name}][?|]",
)
_WHAT_ZH = (
    "[`llmos {name}`|llmos {name}|命令 {name}|{name} 命令][ 是什么| 做什么| 有什么用| 是什么意思][？|]",
    "[解释一下|介绍一下|说说] [`llmos {name}`|llmos {name}][。|]",
)
_LIST_EN = (
    "[What|Which] commands [are there|does LLMOS have|can I use|do you know][?|]",
    "[List|Show me|Name] [all |][the|the llmos|LLMOS] commands[.|]",
)
_LIST_ZH = (
    "[有哪些命令|LLMOS 有什么命令|我可以用哪些命令|有什么命令可以用][？|]",
    "[列出命令|列出所有命令|说说有哪些命令][。|]",
)
NAMES = "serve, run, pull, ls, show, rm, ps, status, key, config"


def sample(rng: random.Random, language: Language) -> Exchange:
    """One question about a command."""
    english = language == "en"
    draw = rng.random()
    if draw < 0.06:
        question = expand(rng, rng.choice(_LIST_EN if english else _LIST_ZH))
        answer = f"The commands are: {NAMES}." if english else f"命令有：{NAMES}。"
        return Exchange("commands", language, normal(question), ((question, answer),), (NAMES,))
    command = rng.choice(COMMANDS)
    values = {
        "usage": command.usage,
        "does": command.does_en if english else command.does_zh,
        "name": command.name,
        "wish": rng.choice(command.wishes_en if english else command.wishes_zh),
    }
    if draw < 0.3 and command.name != "pull file":
        question = expand(rng, rng.choice(_WHAT_EN if english else _WHAT_ZH), **values)
        answer = (
            "`llmos {name}` {does}.".format(**values)
            if english
            else ("`llmos {name}` 会{does}。".format(**values))
        )
        expected = (str(values["does"]),)
    else:
        question = expand(rng, rng.choice(_HOW_EN if english else _HOW_ZH), **values)
        answer = expand(rng, rng.choice(_USE_EN if english else _USE_ZH), **values)
        expected = (f"`{command.usage}`",)
    return Exchange("commands", language, normal(question), ((question, answer),), expected)
