"""Every text of the console, in English and in Chinese."""

from __future__ import annotations

import html
from collections.abc import Mapping

from llmos.errors import LLMOSError

LANGUAGE_NAMES = {"en": "English", "zh": "中文"}
TAGS = {"en": "en", "zh": "zh-CN"}
_PLACE = {"en": 0, "zh": 1}

TEXTS: dict[str, tuple[str, str]] = {
    # the frame
    "frame.menu": ("Pages", "页面"),
    "frame.skip": ("Skip to the content", "跳到正文"),
    "frame.shortcuts": ("Keyboard shortcuts", "键盘快捷键"),
    "frame.logout": ("Log out", "退出登录"),
    "frame.close": ("Close", "关闭"),
    "frame.cancel": ("Cancel", "取消"),
    "frame.denied": ("Your key may not see this.", "您的密钥无权查看此内容。"),
    "frame.nothing": ("Nothing here yet", "暂无内容"),
    "theme.auto": ("Theme: as the system", "主题：跟随系统"),
    "theme.light": ("Theme: light", "主题：浅色"),
    "theme.dark": ("Theme: dark", "主题：深色"),
    "connection.lost": ("The server does not answer.", "服务器没有响应。"),
    "connection.trying": ("Trying to reconnect …", "正在重新连接……"),
    "nav.chat": ("Chat", "对话"),
    "nav.overview": ("Overview", "总览"),
    "nav.processes": ("Processes", "进程"),
    "nav.models": ("Models", "模型"),
    "nav.tasks": ("Tasks", "任务"),
    "nav.training": ("Training", "训练"),
    "nav.evaluate": ("Evaluate", "评测"),
    "nav.settings": ("Settings", "设置"),
    "nav.more": ("More", "更多"),
    # logging in
    "login.title": ("Log in", "登录"),
    "login.key": ("Key", "密钥"),
    "login.enter": ("Log in", "登录"),
    "login.help": (
        "The server prints its token when it starts; it is also in the file “token” of its home. "
        "Keys for other people are made with “llmos key add”.",
        "服务器启动时会打印令牌，它也保存在主目录的 token 文件中。"
        "可用 “llmos key add” 为他人创建密钥。",
    ),
    "login.wrong": ("This key opens nothing here.", "此密钥无效。"),
    "login.failed": (
        "The server cannot check keys now. Try again.",
        "服务器暂时无法验证密钥，请重试。",
    ),
    "login.expired": ("Your session has ended. Log in again.", "会话已过期，请重新登录。"),
    # shortcuts
    "keys.go": ("Go to {page}", "前往{page}"),
    "keys.write": ("Write a message", "撰写消息"),
    "keys.send": ("Send", "发送"),
    "keys.line": ("New line", "换行"),
    "keys.stop": ("Stop the answer", "停止生成"),
    "keys.help": ("Show this list", "显示此列表"),
    # chat
    "chat.model": ("Model", "模型"),
    "chat.other": ("Second model", "第二个模型"),
    "chat.compare": ("Compare two models", "比较两个模型"),
    "chat.compare_end": ("End the comparison", "结束比较"),
    "chat.new": ("New chat", "新对话"),
    "chat.parameters": ("Parameters", "参数"),
    "chat.write": ("Message", "消息"),
    "chat.hint": ("Write a message …", "输入消息……"),
    "chat.send": ("Send", "发送"),
    "chat.stop": ("Stop", "停止"),
    "chat.image": ("Add an image", "添加图片"),
    "chat.image_drop": ("Remove the image", "移除图片"),
    "chat.image_given": ("An image", "一张图片"),
    "chat.image_needed": ("Add an image for {model}.", "请为 {model} 添加图片。"),
    "chat.welcome": ("What would you like to know?", "想了解些什么？"),
    "chat.welcome_more": (
        "Answers come from models on this machine. Nothing leaves it.",
        "回答由本机模型生成，数据不会离开本机。",
    ),
    "chat.you": ("You", "您"),
    "chat.speed": ("{speed} tokens/s", "{speed} 词元/秒"),
    "chat.first": ("first after {first}", "首个词元 {first}"),
    "chat.tokens": ("{num} tokens", "{num} 个词元"),
    "chat.cut": ("cut at the limit of tokens", "已达词元上限"),
    "chat.stopped": ("stopped", "已停止"),
    "chat.waiting": ("Waiting for the model …", "等待模型……"),
    "chat.good": ("Good answer", "回答不错"),
    "chat.bad": ("Bad answer", "回答不佳"),
    "chat.kept": ("Kept. Thank you.", "已记录，谢谢。"),
    "chat.copy": ("Copy the answer", "复制回答"),
    "chat.copied": ("Copied.", "已复制。"),
    "chat.why": ("Why did it take so long?", "为何耗时？"),
    "chat.call": ("Calls {name}", "调用 {name}"),
    "chat.no_models": (
        "There is no model to talk to. Bring one in on the page Models.",
        "没有可对话的模型，请到“模型”页面添加。",
    ),
    "chat.too_long": ("A message may have {num} characters.", "消息最多 {num} 个字符。"),
    "chat.suggest.1": ("What is LLMOS?", "LLMOS 是什么？"),
    "chat.suggest.2": ("How do I suspend a request?", "如何挂起一个请求？"),
    "chat.suggest.3": ("How do I pull a model?", "如何拉取一个模型？"),
    "param.system": ("System prompt", "系统提示词"),
    "param.temperature": ("Temperature", "温度"),
    "param.top_p": ("Top p", "Top p"),
    "param.max_tokens": ("Most tokens", "最多词元"),
    "param.seed": ("Seed", "随机种子"),
    "param.class": ("Class", "类别"),
    "param.tools": ("Tools (JSON)", "工具（JSON）"),
    "param.bad_tools": (
        "Tools are a JSON list of functions.",
        "工具应为 JSON 格式的函数列表。",
    ),
    # overview
    "overview.speed": ("tokens per second", "词元/秒"),
    "overview.running": ("running", "运行中"),
    "overview.waiting": ("waiting", "等待中"),
    "overview.memory": ("memory reserved", "已预留内存"),
    "overview.uptime": ("up", "已运行"),
    "overview.throughput": ("Throughput, tokens per second", "吞吐量（词元/秒）"),
    "overview.queue": ("Waiting by class", "各类别等待数"),
    "overview.ledger": ("Memory ledger", "内存账本"),
    "overview.device": ("{device}: budget {budget}", "{device}：预算 {budget}"),
    "overview.free": ("free", "空闲"),
    "overview.others": ("others", "其他"),
    "overview.resident": ("Resident models", "驻留模型"),
    "replica.model": ("Model", "模型"),
    "replica.state": ("State", "状态"),
    "replica.rows": ("Rows", "行"),
    "replica.waits": ("Waiting", "等待"),
    "replica.memory": ("Reserved", "预留"),
    "replica.dtype": ("Weights", "权重"),
    "replica.driver": ("Driver", "驱动"),
    "replica.kept": ("Kept for", "保留"),
    "replica.pinned": ("pinned", "固定"),
    "alert.none": ("Nothing needs attention.", "一切正常。"),
    "alert.problem": ("Not ready: {what}", "未就绪：{what}"),
    "alert.failed": ("{model} failed: {why}", "{model} 失败：{why}"),
    "alert.restarted": ("{model} was restarted {num} times", "{model} 已重启 {num} 次"),
    "alert.slow": ("{model}: {why}", "{model}：{why}"),
    "alert.lacking": (
        "{model} waits for {need} of memory: {why}",
        "{model} 等待 {need} 内存：{why}",
    ),
    "alert.full": ("The memory of {device} is {share} reserved", "{device} 的内存已预留 {share}"),
    "alert.disk": ("Only {free} are free on the disk", "磁盘仅剩 {free}"),
    # tables
    "grid.choose": ("Choose", "选择"),
    "grid.all": ("Choose all on this page", "选择本页全部"),
    "grid.back": ("Page before", "上一页"),
    "grid.next": ("Next page", "下一页"),
    "grid.range": ("{first}–{last} of {total}", "第 {first}–{last} 项，共 {total} 项"),
    "group.live": ("Live", "活动"),
    "group.ended": ("Ended", "已结束"),
    "group.all": ("All", "全部"),
    # processes
    "process.process": ("Process", "进程"),
    "process.state": ("State", "状态"),
    "process.model": ("Model or program", "模型或程序"),
    "process.owner": ("Owner", "所有者"),
    "process.class": ("Class", "类别"),
    "process.tokens": ("Tokens", "词元"),
    "process.progress": ("Progress", "进度"),
    "process.age": ("Age", "存在时间"),
    "process.took": ("Ran", "运行时间"),
    "process.search": ("Search", "搜索"),
    "verb.suspend": ("Suspend", "挂起"),
    "verb.resume": ("Resume", "恢复"),
    "verb.kill": ("Kill", "终止"),
    "why.title": ("Why", "原因"),
    "why.nice": ("Nice", "Nice 值"),
    "why.apply": ("Apply", "应用"),
    "why.tokens": ("{prompt} + {answer} tokens", "{prompt} + {answer} 个词元"),
    "why.cached": ("{num} from the cache", "{num} 个来自缓存"),
    "why.waited": ("waited {span}", "等待 {span}"),
    "why.eta": ("a row expected in {span}", "预计 {span} 后运行"),
    "state.preparing": ("preparing", "准备中"),
    "state.waiting": ("waiting", "等待中"),
    "state.running": ("running", "运行中"),
    "state.paused": ("paused", "已暂停"),
    "state.suspending": ("suspending", "挂起中"),
    "state.suspended": ("suspended", "已挂起"),
    "state.blocked": ("blocked", "阻塞"),
    "state.pending": ("pending", "待运行"),
    "state.finished": ("finished", "已完成"),
    "state.failed": ("failed", "失败"),
    "state.aborted": ("aborted", "已中止"),
    "state.succeeded": ("succeeded", "成功"),
    "state.cancelled": ("cancelled", "已取消"),
    "state.dead": ("dead", "死信"),
    "state.starting": ("starting", "启动中"),
    "state.ready": ("ready", "就绪"),
    "state.parked": ("parked", "已停放"),
    "state.stopping": ("stopping", "停止中"),
    "class.interactive": ("interactive", "交互"),
    "class.default": ("default", "默认"),
    "class.batch": ("batch", "批处理"),
}

_learned: dict[str, tuple[str, str]] = {}


def learn(texts: Mapping[str, tuple[str, str]]) -> None:
    """Texts that a page brought along."""
    _learned.update(texts)


class Texts:
    """The texts of one language."""

    def __init__(self, language: str) -> None:
        self.language = language
        self._place = _PLACE[language]

    @property
    def tag(self) -> str:
        """As HTML and BCP 47 name the language."""
        return TAGS[self.language]

    def __call__(self, key: str, **fields: object) -> str:
        """Raises KeyError on a text that does not exist."""
        pair = TEXTS.get(key) or _learned[key]
        text = pair[self._place]
        return text.format(**fields) if fields else text

    def find(self, key: str, default: str) -> str:
        """The text of a word that may be unknown: states and kinds of drivers to come."""
        pair = TEXTS.get(key) or _learned.get(key)
        return pair[self._place] if pair else default

    def shortcuts(self) -> list[tuple[str, str]]:
        """Keys, and what they do."""
        go = self("keys.go", page="…")
        return [
            ("g c", go.replace("…", self("nav.chat"))),
            ("g o", go.replace("…", self("nav.overview"))),
            ("g p", go.replace("…", self("nav.processes"))),
            ("g m", go.replace("…", self("nav.models"))),
            ("/", self("keys.write")),
            ("Enter", self("keys.send")),
            ("Shift Enter", self("keys.line")),
            ("Esc", self("keys.stop")),
            ("?", self("keys.help")),
        ]

    def error(self, error: LLMOSError) -> str:
        """What the server said, which is English."""
        return f"{error.message} ({error.code})"

    def markup(self, key: str, **fields: object) -> str:
        """A text with words of others in it, as HTML."""
        return html.escape(self(key, **fields))
