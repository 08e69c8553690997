"""Chat: answers stream, two models answer side by side, and nothing that a model writes runs."""

from __future__ import annotations

from tests.browser.conftest import Visitor

HOSTILE = (
    '<img src="http://evil.example/a.png" onerror="window.pwned=1"><script>window.pwned=1</script> '
    "![a](http://evil.example/b.png) [x](javascript:window.pwned=1) "
    "[y](data:text/html,<script>window.pwned=1</script>) \x1b[31mred\x1b[0m "
    '<iframe src="http://evil.example"></iframe> <svg onload="window.pwned=1"> **bold**'
)


def _say(me: Visitor, words: str) -> None:
    me.page.get_by_role("textbox", name="Message").fill(words)
    me.page.keyboard.press("Enter")


def _choose(me: Visitor, column: int, model: str) -> None:
    me.page.locator(".voice").nth(column).get_by_role("combobox").click()
    me.page.get_by_role("option", name=model, exact=True).click()


def test_an_answer_streams_and_says_how_fast(me: Visitor) -> None:
    _say(me, "What is LLMOS?")
    me.page.get_by_role("button", name="Good answer").wait_for()
    assert "operating system" in me.page.locator(".answer").inner_text()
    facts = me.page.locator(".speed").inner_text()
    assert "tokens/s" in facts
    assert "first after" in facts


def test_what_people_think_is_kept(me: Visitor) -> None:
    _say(me, "What is LLMOS?")
    me.page.get_by_role("button", name="Good answer").click()
    me.page.get_by_text("Kept. Thank you.").first.wait_for()
    me.page.get_by_role("button", name="Bad answer").click()
    me.page.locator("[aria-pressed=true][aria-label='Bad answer']").wait_for()
    with me.server.client() as client:
        kept = client.get("/os/v1/feedback").json()["feedback"]
    assert kept[0]["rating"] == "down"
    assert kept[0]["model"] == "pilot:1"


def test_two_models_answer_side_by_side(me: Visitor) -> None:
    me.page.get_by_role("button", name="Compare two models").click()
    _choose(me, 1, "echo")
    _say(me, "What is LLMOS?")
    columns = me.page.locator(".voice")
    for place in range(2):
        columns.nth(place).get_by_role("button", name="Good answer").wait_for()
    assert "operating system" in columns.nth(0).locator(".answer").inner_text()
    assert "What is LLMOS?" in columns.nth(1).locator(".answer").inner_text()


def test_an_answer_is_stopped(me: Visitor) -> None:
    _choose(me, 0, "echo")
    _say(me, "word " * 4_000)
    me.page.locator(".answer >> text=word").first.wait_for()
    me.page.keyboard.press("Escape")
    me.page.locator(".speed", has_text="stopped").wait_for()
    me.page.get_by_role("button", name="Send").wait_for()


def test_nothing_a_model_writes_runs_or_loads(me: Visitor) -> None:
    _choose(me, 0, "echo")
    _say(me, HOSTILE)
    me.page.get_by_role("button", name="Good answer").wait_for()
    answer = me.page.locator(".answer")
    assert "bold" in answer.locator("strong").inner_text()
    assert "red" in answer.inner_text()
    assert "\x1b" not in answer.inner_text()
    assert answer.locator("img, script, iframe, svg, [onerror], [onload]").count() == 0
    assert answer.locator("a").count() == 0
    assert me.page.evaluate("window.pwned") is None


def test_a_refusal_is_said_and_the_talk_goes_on(me: Visitor) -> None:
    me.page.get_by_role("button", name="Parameters").click()
    me.page.get_by_label("Most tokens").fill("1000000")
    me.page.get_by_label("Most tokens").press("Tab")
    _say(me, "What is LLMOS?")
    me.page.locator(".calls .problem").wait_for()
    me.page.get_by_label("Most tokens").fill("5")
    me.page.get_by_label("Most tokens").press("Tab")
    _say(me, "What is LLMOS?")
    me.page.locator(".speed", has_text="cut at the limit").wait_for()


def test_a_classifier_answers_with_its_labels(me: Visitor) -> None:
    _choose(me, 0, "sentiment")
    _say(me, "I love this film")
    label = me.page.locator(".answer .label", has_text="positive")
    label.wait_for(timeout=60_000)  # it is loaded first


def test_the_policy_forbids_other_hosts(me: Visitor) -> None:
    """What would load if anything got through: the browser refuses, and tells."""
    me.page.evaluate(
        "document.body.append(Object.assign(new Image(), {src: 'http://evil.example/x'}))"
    )
    me.page.wait_for_timeout(300)
    refused = [p for p in me.problems if "Content Security Policy" in p]
    assert refused
    me.problems[:] = [p for p in me.problems if p not in refused and "evil.example" not in p]
