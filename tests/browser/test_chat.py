"""Chat: answers stream, two models answer side by side, and nothing that a model writes runs."""

from __future__ import annotations

from pathlib import Path

from llmos.api.config import ApiConfig
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
    me.page.locator(".q-menu").wait_for(state="detached")


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


def _answered(me: Visitor, times: int = 1) -> None:
    me.page.wait_for_function(
        "(n) => document.querySelectorAll('[aria-label=\"Good answer\"]').length === n", arg=times
    )


def _reload(me: Visitor) -> None:
    me.page.reload()
    me.settle()


def test_a_reload_loses_nothing_and_the_talk_goes_on(me: Visitor) -> None:
    _choose(me, 0, "echo")
    _say(me, HOSTILE)
    _answered(me)
    facts = me.page.locator(".speed").inner_text()
    _reload(me)
    _answered(me)
    assert me.page.locator(".turn.ours .said").inner_text().startswith("<img src=")
    assert me.page.locator(".answer strong").inner_text() == "bold"
    assert me.page.locator(".speed").inner_text() == facts
    assert me.page.evaluate("window.pwned") is None
    assert "echo" in me.page.locator(".voice").first.get_by_role("combobox").input_value()
    _choose(me, 0, "pilot")  # echo reads only what was said last
    _say(me, "and again")
    _answered(me, 2)
    with me.server.client() as client:  # what was said before is part of the second request
        listed = client.get("/os/v1/processes", params={"model": "pilot"}).json()["processes"]
    assert max(p["prompt_tokens"] for p in listed) > 100


def test_a_chat_stays_while_one_looks_elsewhere_until_it_is_cleared(me: Visitor) -> None:
    me.page.get_by_role("button", name="Compare two models").click()
    _choose(me, 0, "echo")
    _choose(me, 1, "pilot")
    _say(me, "What is LLMOS?")
    _answered(me, 2)
    me.go("/models").go("/")
    _answered(me, 2)
    assert me.page.locator(".voice").nth(1).is_visible()
    assert "operating system" in me.page.locator(".voice").nth(1).inner_text()
    me.page.get_by_role("button", name="New chat").click()
    me.page.locator(".turn").first.wait_for(state="detached")
    _reload(me)
    me.page.get_by_text("What would you like to know?").wait_for()
    assert me.page.locator(".turn").count() == 0


def test_who_logs_in_next_sees_nothing_of_it(me: Visitor) -> None:
    _choose(me, 0, "echo")
    _say(me, "between us")
    _answered(me)
    kept = me.page.evaluate("sessionStorage.getItem('llmos_chat')")
    assert "between us" in kept
    assert me.server.token not in kept
    me.page.get_by_role("button", name="Log out").click()
    me.page.wait_for_url("**/login*")
    assert me.page.evaluate("sessionStorage.getItem('llmos_chat')") is None
    with me.server.client() as client:
        made = client.post("/os/v1/keys", json={"name": "next", "tenant": "other"}).json()
    me.page.evaluate("(kept) => sessionStorage.setItem('llmos_chat', kept)", kept)
    me.page.goto("about:blank")  # only the part after the # would change otherwise
    me.log_in(made["secret"])
    me.page.get_by_text("What would you like to know?").wait_for()
    me.page.wait_for_function("() => sessionStorage.getItem('llmos_chat') === null")
    _reload(me)
    assert me.page.locator(".turn").count() == 0


def test_what_no_chat_is_is_not_restored(me: Visitor) -> None:
    for broken in ("{", "[]", '{"owner": 1}', "x" * 100_000):
        me.page.evaluate("(kept) => sessionStorage.setItem('llmos_chat', kept)", broken)
        _reload(me)
        me.page.get_by_text("What would you like to know?").wait_for()
        assert me.page.locator(".turn").count() == 0


def test_an_image_for_a_model_that_sees_none(me: Visitor, repository: Path) -> None:
    """It is sent, the model's refusal is said, and the talk goes on without it."""
    picture = repository / "docs" / "screenshots" / "chat-phone.png"
    me.page.locator("input[type=file]").set_input_files(picture)
    me.page.locator(".preview img[src^='data:image/png;base64,']").wait_for()
    _say(me, "What is in it?")
    me.page.locator(".calls .problem").wait_for()
    said = me.page.locator(".calls .problem").inner_text()
    assert "image" in said
    assert not me.page.locator(".preview").is_visible()
    _say(me, "What is LLMOS?")
    me.page.locator(".answer", has_text="operating system").wait_for()


def test_an_image_that_no_request_could_carry_is_refused_at_once(me: Visitor) -> None:
    """As base64 it would not fit into the API's body: 8 MiB, with room for words."""
    most = ApiConfig().max_inline_image_bytes
    field = me.page.locator("input[type=file]")
    field.set_input_files({"name": "a.png", "mimeType": "image/png", "buffer": b"x" * (most + 1)})
    me.page.locator(".q-notification", has_text="An image may have 5.25 MiB").wait_for()
    assert not me.page.locator(".preview").is_visible()
    field.set_input_files({"name": "b.png", "mimeType": "image/png", "buffer": b"x" * most})
    me.page.locator(".preview").wait_for()
    _say(me, "What is in it?")
    me.page.locator(".calls .problem").wait_for()
    said = me.page.locator(".calls .problem").inner_text()
    assert "image" in said  # the model's refusal, not that of the body
    assert "bytes" not in said


def test_a_slow_browser_loses_no_chat(me: Visitor) -> None:
    """It answers what it kept after more than a second."""
    _choose(me, 0, "echo")
    _say(me, "between us")
    _answered(me)
    me.page.add_init_script(
        "const begun = Date.now(), get = Storage.prototype.getItem;"
        "Storage.prototype.getItem = function (name) {"
        "  if (name === 'llmos_chat') { while (Date.now() - begun < 4000); }"
        "  return get.call(this, name); }"
    )
    _reload(me)
    _answered(me)
    assert "between us" in me.page.locator(".turn.ours").inner_text()


def test_a_call_of_a_tool_is_shown_as_one(me: Visitor) -> None:
    _choose(me, 0, "echo")
    me.page.get_by_role("button", name="Parameters").click()
    tools = me.page.get_by_label("Tools")
    tools.fill("{")
    tools.press("Tab")
    _say(me, "hello")
    me.page.locator(".q-notification", has_text="no JSON").wait_for()
    tools.fill('{"name": "weather", "parameters": {"type": "object"}}')
    tools.press("Tab")
    call = '{"name": "weather", "arguments": {"city": "<b>Köln</b>"}}'
    me.page.get_by_role("textbox", name="Message").fill(
        f"Let me look.\n<tool_call>\n{call}\n</tool_call>"
    )
    me.page.keyboard.press("Enter")
    box = me.page.locator(".call")
    box.wait_for()
    _answered(me)
    assert "Calls weather" in box.inner_text()
    assert '"city": "<b>Köln</b>"' in box.inner_text()
    assert me.page.locator(".answer").inner_text().strip() == "Let me look."
    _reload(me)
    assert "Köln" in me.page.locator(".call").inner_text()
