"""Chat templates: what public ones need works, what hostile ones try ends at once."""

# ruff: noqa: E501 (templates are long lines)
from __future__ import annotations

import json
from typing import Any

import pytest

from llmos.drivers.text.limits import TemplateLimits
from llmos.drivers.text.template import ChatTemplate
from llmos.errors import InvalidRequest

SMALL = TemplateLimits(num_steps=20_000, num_chars=200_000, deadline_s=1.0)
TALK = [{"role": "user", "content": "你好 🎉"}, {"role": "assistant", "content": "<b>"}]


def render(source: str, **variables: Any) -> str:
    return ChatTemplate(source).render({"messages": TALK, **variables})


def test_the_usual() -> None:
    source = (
        "{%- for m in messages %}\n    {{- '<|' + m['role'] + '|>' + m.content + '\\n' }}\n"
        "    {%- if loop.last %}{{ loop.length ~ '/' ~ loop.index0 }}{% endif %}\n{%- endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
    )
    made = render(source, add_generation_prompt=True)
    assert made == "<|user|>你好 🎉\n<|assistant|><b>\n2/1<|assistant|>"


@pytest.mark.parametrize(
    ("source", "made"),
    [
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", "x"),
        ("{% generation %}a{{ 1 }}{% endgeneration %}b", "a1b"),
        ("{{ messages[0].content | tojson }}", '"你好 🎉"'),
        ("{{ messages[1].content | tojson }}", '"<b>"'),
        ("{{ {'b': 1, 'a': [2]} | tojson(indent=1) }}", json.dumps({"b": 1, "a": [2]}, indent=1)),
        ("{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}", "2"),
        ("{% macro f(x, y='d') %}[{{ x }}{{ y }}]{% endmacro %}{{ f('a') }}{{ f('b', 'c') }}", "[ad][bc]"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | map(attribute='content') | join(',') }}", "你好 🎉"),
        ("{{ messages[1:] | length }}{{ messages[-1]['role'] | upper }}", "1ASSISTANT"),
        ("{{ ' a '.strip() + 'b'.title() + 'x,y'.split(',')[1] + 'abc'.replace('b', '-') }}", "aBya-c"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}={{ v }}{% endfor %}", "a=1"),
        ("{{ 'x' if missing is defined else 'y' }}{{ missing }}", "y"),
        ("{% set x %}in{{ 1 }}{% endset %}{{ x | trim }}{{ '%s-%d' % ('a', 3) }}{{ '{}'.format(4) }}", "in1a-34"),
        ("{{ ('ab' * 2) | indent(2, true) }}{{ [1, 2] + [3] }}{{ 2 ** 3 }}{{ 7 % 4 }}", "  abab[1, 2, 3]83"),
        ("{{ messages is iterable }}{{ messages[0] is mapping }}{{ none is none }}", "TrueTrueTrue"),
        ("{% if true %}\n  a\n{% endif %}\nb", "  a\nb"),
        ("{% for x in [1, [2, [3]]] recursive %}{{ x if x is number else loop(x) }}{% endfor %}", "123"),
    ],
)  # fmt: skip
def test_what_public_templates_use(source: str, made: str) -> None:
    assert render(source) == made


def test_dates() -> None:
    assert render("{{ strftime_now('%Y') }}").isdigit()


def test_a_template_refuses_in_its_own_words() -> None:
    with pytest.raises(InvalidRequest, match="roles must alternate") as caught:
        render("{{ raise_exception('roles must alternate') }}")
    assert caught.value.param == "messages"


DOUBLING = "{% set ns = namespace(s='aaaaaaaa') %}{% for i in range(60) %}BODY{% endfor %}"
HOSTILE = [
    "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "{% for a in range(10**9) %}{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ 1000000000 * 'a' }}",
    "{{ 9**(9**9) }}",
    "{{ 'a' | center(1000000000) }}",
    "{{ 'a'.ljust(1000000000) }}",
    "{{ '%1000000000d' % 3 }}",
    "{{ '{:1000000000}'.format(3) }}",
    "{{ '{:{}}'.format(3, 1000000000) }}",
    "{{ '%*d' | format(1000000000, 3) }}",
    "{{ 'ab'.translate({97: 'b' * 1000}) }}",
    DOUBLING.replace("BODY", "{% set ns.s = ns.s ~ ns.s %}"),
    DOUBLING.replace("BODY", "{% set ns.s = ns.s + ns.s %}"),
    DOUBLING.replace("BODY", "{% set x %}{{ ns.s }}{{ ns.s }}{% endset %}{% set ns.s = x %}"),
    DOUBLING.replace("BODY", "{% set ns.s = [ns.s, ns.s] %}") + "{{ ns.s }}",
    DOUBLING.replace("BODY", "{% set ns.s = (ns.s, ns.s) %}") + "{{ ns.s | tojson }}",
    DOUBLING.replace("BODY", "{% set ns.s = {'a': ns.s, 'b': ns.s} %}") + "{{ ns.s | string }}",
    DOUBLING.replace("BODY", "{% set ns.s = dict(a=ns.s, b=ns.s) %}") + "{{ ns.s ~ '' }}",
    DOUBLING.replace("BODY", "{% set ns.s = ns.s | replace('', ns.s) %}"),
    "{% set ns = namespace() %}{% set ns.me = ns %}{{ ns }}",
    "{% macro f(n) %}{{ f(n - 1) if n }}{{ f(n - 1) if n }}{% endmacro %}{{ f(60) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% set a = 'a' * 9999 %}{{ a.replace('a', a) }}",
    "{% set a = 'a' * 9999 %}{{ a | replace('a', a) }}",
    "{% set l = range(9999) | list %}{{ range(99999) | select('in', l) | list | length }}",
    "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "{{ (['a' * 1000] * 1000) | join }}",
    "{{ 'b'.join(['a' * 1000] * 1000) }}",
    "{{ ('\n' * 9999) | indent(9999) }}",
    "{{ [1] | batch(1000000000, 'x') | list }}",
    "{{ [1] | tojson(indent=1000000000) }}",
    "{% for a in range(99999) %}" + "x" * 9999 + "{% endfor %}",
    "{% set y %}{% for a in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
    "{{ strftime_now('%999999999Y') }}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{% include 'x' %}",
    "{% for %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.append(1) }}",
    "{{ messages | attr('__class__') }}{{ (messages | attr('__class__'))() }}",
    "{{ '{0.__class__}'.format(messages) + 1 }}",
    "{{ lipsum.__globals__ }}",
    "{{ cycler.__init__.__globals__.os }}",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_templates_end_in_a_refusal(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        ChatTemplate(source, SMALL).render({"messages": list(TALK)})
    assert len(caught.value.message) < 500


def test_a_huge_template_is_not_parsed() -> None:
    with pytest.raises(InvalidRequest, match="too long"):
        ChatTemplate("x" * 1_000_001)


def test_long_talk_is_not_hostile() -> None:
    talk = [{"role": "user", "content": "word " * 200_000}] * 3
    made = ChatTemplate("{% for m in messages %}{{ m.role ~ m.content }}{% endfor %}").render(
        {"messages": talk}
    )
    assert len(made) == 3 * 1_000_004
