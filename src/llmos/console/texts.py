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
    "chat.image_too_large": ("An image may have {size}.", "图片最大为 {size}。"),
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
    # models
    "model.source": ("hf:org/name, or a known model", "hf:org/name 或已知模型"),
    "model.as": ("Call it", "命名为"),
    "model.pull": ("Pull", "拉取"),
    "model.pulled": ("{model} is here.", "{model} 已就绪。"),
    "model.known": ("Known models to pull", "可拉取的已知模型"),
    "model.card": ("Model", "模型"),
    "model.model": ("Model", "模型"),
    "model.name": ("Name", "名称"),
    "model.state": ("State", "状态"),
    "model.kinds": ("For", "用途"),
    "model.tasks": ("For", "用途"),
    "model.languages": ("Languages", "语言"),
    "model.driver": ("Driver", "驱动"),
    "model.params": ("Parameters", "参数量"),
    "model.size": ("Size", "大小"),
    "model.context": ("Context", "上下文"),
    "model.dtype": ("Weights", "权重"),
    "model.license": ("License", "许可证"),
    "model.about": ("About", "简介"),
    "model.done.load": ("{model} is loaded.", "{model} 已加载。"),
    "model.done.unload": ("{model} is being unloaded.", "{model} 正在卸载。"),
    "model.done.pin": ("{model} stays loaded.", "{model} 将保持驻留。"),
    "model.done.unpin": ("{model} stays no longer than others.", "{model} 不再固定。"),
    "model.done.remove": ("{model} is removed.", "{model} 已删除。"),
    "verb.load": ("Load", "加载"),
    "verb.unload": ("Unload", "卸载"),
    "verb.pin": ("Pin", "固定"),
    "verb.unpin": ("Unpin", "取消固定"),
    "verb.remove": ("Remove", "删除"),
    "phase.check": ("Checking", "检查中"),
    "phase.upload": ("Sending", "上传中"),
    "phase.download": ("Downloading", "下载中"),
    "phase.quantize": ("Quantizing", "量化中"),
    "phase.hash": ("Verifying", "校验中"),
    "phase.register": ("Registering", "登记中"),
    "card.about": ("About", "简介"),
    "card.kinds": ("For", "用途"),
    "card.source": ("Source", "来源"),
    "card.driver": ("Driver", "驱动"),
    "card.chosen": ("Why this driver", "选择理由"),
    "card.adapter": ("Adapter / base", "适配器 / 基座"),
    "card.architecture": ("Architecture", "架构"),
    "card.params": ("Parameters", "参数量"),
    "card.context": ("Context", "上下文"),
    "card.size": ("Files", "文件大小"),
    "card.dtype": ("Weights", "权重"),
    "card.loaded": ("In memory", "内存中"),
    "card.footprint": ("Needs at most", "最多占用"),
    "card.license": ("License", "许可证"),
    "card.languages": ("Languages", "语言"),
    "card.measured": ("Measured", "实测"),
    "card.egress": ("Reaches out to", "外连主机"),
    "card.aliases": ("Aliases", "别名"),
    "card.digest": ("Digest", "摘要"),
    "card.made": ("Registered", "登记时间"),
    # tasks
    "task.new": ("New task", "新任务"),
    "task.type": ("What to do", "做什么"),
    "task.model": ("Model", "模型"),
    "task.auto": ("automatic", "自动"),
    "task.labels": ("Labels, with commas", "标签（逗号分隔）"),
    "task.to": ("Into which language", "译为何种语言"),
    "task.column": ("Column", "列"),
    "task.name": ("Name", "名称"),
    "task.file": ("Choose a file", "选择文件"),
    "task.file_drop": ("Remove the file", "移除文件"),
    "task.items": ("or lines of text, one for each row", "或输入文本，每行一条"),
    "task.start": ("Start", "开始"),
    "task.too_large": ("The file is too large.", "文件过大。"),
    "task.state": ("State", "状态"),
    "task.progress": ("Progress", "进度"),
    "task.took": ("Ran", "运行时间"),
    "task.result": ("Result", "结果"),
    "task.cancel": ("Cancel", "取消"),
    "task.found": ("Labels found", "标签分布"),
    "task.fact.model": ("Model", "模型"),
    "task.fact.chosen": ("Why this model", "选择理由"),
    "task.fact.completed": ("Rows done", "完成行数"),
    "task.fact.failed": ("Rows failed", "失败行数"),
    "task.fact.tokens": ("Tokens", "词元"),
    "task.fact.speed": ("Rows per second", "行/秒"),
    "task.fact.eta": ("Ends in", "预计剩余"),
    "task.fact.reason": ("Reason", "原因"),
    "kind.generate": ("generate", "生成"),
    "kind.summarize": ("summarize", "摘要"),
    "kind.translate": ("translate", "翻译"),
    "kind.classify": ("classify", "分类"),
    "kind.extract": ("extract", "抽取"),
    "kind.qa": ("answer questions", "问答"),
    "kind.embed": ("embed", "向量化"),
    "kind.rerank": ("rerank", "重排"),
    "kind.caption": ("describe images", "图像描述"),
    "kind.transcribe": ("transcribe", "语音转写"),
    # training
    "run.name": ("Run", "运行"),
    "run.state": ("State", "状态"),
    "run.program": ("Program", "程序"),
    "run.progress": ("Progress", "进度"),
    "run.newest": ("Newest values", "最新数值"),
    "run.took": ("Ran", "运行时间"),
    "run.samples": ("What the model said meanwhile", "训练中的样例"),
    "run.hint": (
        "Jobs that log metrics show their curves here. Choose several to compare them.",
        "记录指标的作业会在此显示曲线，可选择多个进行比较。",
    ),
    # evaluations
    "eval.name": ("Evaluation", "评测"),
    "eval.state": ("State", "状态"),
    "eval.model": ("Model", "模型"),
    "eval.score": ("Score", "指标"),
    "eval.value": ("Value", "数值"),
    "eval.against": ("Against", "对比"),
    "eval.change": ("Change", "变化"),
    "eval.examples": ("Examples", "样例数"),
    "eval.scores": ("Scores", "各项指标"),
    "eval.worse": ("worse", "退步"),
    "eval.kept": ("no worse", "未退步"),
    "eval.confusion": ("Rows: what it is. Columns: what was said.", "行：真实类别；列：模型判断。"),
    "eval.hint": (
        "The best of each score comes first; “worse” is beyond chance. "
        "Evaluations are started with “llmos eval run”.",
        "每项指标最优者在前；“退步”表示超出随机误差。可用 “llmos eval run” 启动评测。",
    ),
    # settings
    "setting.key": ("Setting", "设置项"),
    "setting.value": ("Value", "值"),
    "setting.origin": ("From", "来源"),
    "setting.meaning": ("Meaning", "含义"),
    "origin.all": ("All", "全部"),
    "origin.set": ("Set", "已设置"),
    "origin.default": ("default", "默认"),
    "origin.flag": ("flag", "命令行"),
    "origin.environment": ("environment", "环境变量"),
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
