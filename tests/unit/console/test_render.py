"""Whatever a model writes: it is shown, and nothing of it runs or loads."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.console.render import to_html
from llmos.sdk.draw.words import plain

HARMLESS = {
    "p",
    "br",
    "strong",
    "em",
    "s",
    "code",
    "pre",
    "ul",
    "ol",
    "li",
    "blockquote",
    "hr",
    "h1",
}
HARMLESS |= {"h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td", "a", "span"}


@pytest.mark.parametrize(
    "text",
    [
        '<img src="http://evil/x.png" onerror="alert(1)">',
        "<script>alert(1)</script>",
        "![alt](http://evil/x.png)",
        "![x][r]\n\n[r]: http://evil/x.png",
        "[x](javascript:alert(1))",
        "[x](JaVaScRiPt:alert(1))",
        "[x](data:text/html,<script>alert(1)</script>)",
        "[x](vbscript:x) <javascript:alert(1)>",
        "[x](file:///etc/passwd) [y](//evil/x) [z](/logout)",
        "<iframe src=//evil></iframe><svg onload=alert(1)>",
        "```html\n<script>alert(1)</script>\n```",
        "<style>@import '//evil'</style>",
        "```=\nx\n```",
        '[x](https://a.b/"onmouseover="alert(1))',
    ],
)
def test_nothing_runs_or_loads(text: str) -> None:
    _is_harmless(to_html(text))


def _is_harmless(markup: str) -> None:
    tags = re.findall(r"<\s*/?\s*([a-zA-Z0-9]+)([^>]*)>", markup)
    assert {name for name, _ in tags} <= HARMLESS
    for name, attributes in tags:
        given_names = set(re.findall(r'(?<!\S)([a-z-]+)="', attributes))
        assert given_names <= {"href", "title", "rel", "class", "style", "start"}, attributes
        if name == "a" and "href" in attributes:
            assert re.search(r'href="https?://', attributes), attributes
        assert "style" not in given_names or re.search(r'style="text-align:\w+"', attributes)


@given(st.text(alphabet=st.sampled_from("<>[]()!\"'`*_#=:/&\\ \n\x1bajscriptdhe.1-|~")))
def test_no_text_at_all_is_harmful(text: str) -> None:
    _is_harmless(to_html(text))


def test_markdown_is_shown() -> None:
    made = to_html("**a** `b`\n\n- c\n\n| d | e |\n|---|---|\n| 1 | 2 |")
    for tag in ("<strong>a", "<code>b", "<li>c", "<th>d", "<td>2"):
        assert tag in made
    assert to_html("[x](https://a.b/c)").count('rel="noopener noreferrer nofollow"') == 1
    assert "image (http://a/b.png)" in to_html("![](http://a/b.png)")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred\x1b[0m", "red"),
        ("\x1b]8;;http://evil\x07link\x1b]8;;\x07", "link"),
        ("\x1b]0;title\x1b\\x", "x"),
        ("a\x00b\x07c\x9bd", "abcd"),
        ("\u202eevil\u202c", "evil"),
        ("tab\tand\nline", "tab\tand\nline"),
    ],
)
def test_terminal_sequences_and_marks_are_taken_out(text: str, shown: str) -> None:
    assert plain(text) == shown
