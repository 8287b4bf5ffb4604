"""The page at ``/`` in a real browser, in front of real models."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from daemon.wire.settings import hashed_key
from tests.e2e.browser import SKIP, open_browser
from tests.e2e.service import Service, config_toml, running_service, smollm, started
from tests.e2e.vision_models import BUNDLED

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.e2e_page,
    pytest.mark.skipif(SKIP in os.environ, reason=f"{SKIP} is set: the page is not tested"),
]

RED_SQUARE = Path(__file__).parents[1] / "fixtures" / "images" / "red_square.png"
TEXT = next(iter(smollm()))
REFUSAL = {"error": {"message": "the pool is read-only", "type": "server_error"}}
SLOW_MS = 60_000
"""A load on a busy machine."""


@pytest.fixture(scope="module")
def small() -> Iterator[Service]:
    """A service with room for one model at a time."""
    config = config_toml(smollm()).replace('memory = "16G"', 'memory = "1G"\nkv_tokens = 4096')
    assert "1G" in config
    with running_service(config) as service:
        yield service


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as opened:
        yield opened


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A tab that allows no error and no violation of the content policy."""
    said: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"} and "net::ERR_" not in message.text:
            said.append(message.text)

    with browser.new_context(viewport={"width": 1280, "height": 900}) as context:
        tab = context.new_page()
        tab.on("console", hear)
        tab.on("pageerror", lambda error: said.append(str(error)))
        yield tab
    # Chromium itself reports every answer of 400 and more; what the page makes of one is tested.
    assert [line for line in said if "the server responded with a status of" not in line] == []


def ask(page: Page, model: str, words: str) -> None:
    page.select_option("#model", model)
    page.fill("#prompt", words)
    page.press("#prompt", "Enter")


def test_a_picture_an_eviction_and_the_past(small: Service, page: Page) -> None:
    page.goto(small.url)
    expect(page.locator("#health")).to_have_text("serving")
    expect(page.locator("#empty")).to_contain_text("No model is in memory")

    page.select_option("#model", BUNDLED)
    page.set_input_files("#file", RED_SQUARE)
    ask(page, BUNDLED, "What shape do you see and what color is it?")
    answer = page.locator(".assistant").last
    expect(answer.locator(".note")).to_contain_text("tok/s", timeout=SLOW_MS)
    assert {"red", "square"} <= set(re.findall(r"\w+", answer.inner_text().lower()))
    glimpse = page.locator(f'#models tr[data-model="{BUNDLED}"]')
    expect(glimpse.locator(".state")).to_have_text("idle")

    page.click("#clear")
    page.click("summary")
    page.fill("#max-tokens", "8")
    ask(page, TEXT, "What is the capital of France? Answer in one word.")
    expect(page.locator(".assistant .note")).to_contain_text("tokens", timeout=SLOW_MS)
    expect(page.locator(".assistant .words")).to_contain_text("Paris")

    evicted = page.locator('#events [data-type="evict.started"]')
    expect(evicted).to_contain_text(BUNDLED)
    expect(evicted).to_contain_text(f"{TEXT} needs")
    expect(glimpse).to_have_count(0)
    expect(page.locator(f'#models tr[data-model="{TEXT}"]')).to_have_count(1)

    page.focus("#slider")
    seq = _back_to(page, "load.ready", BUNDLED)
    expect(page.locator("#when")).to_contain_text(f"after record {seq}")
    expect(glimpse.locator(".state")).to_have_text("idle")
    expect(page.locator(f'#models tr[data-model="{TEXT}"]')).to_have_count(0)
    page.click("#now")
    expect(page.locator("#when")).to_have_text("now")
    expect(page.locator(f'#models tr[data-model="{TEXT}"]')).to_have_count(1)


def _back_to(page: Page, event: str, model: str) -> str:
    """Move the slider back with the arrow keys until this event's record is looked at."""
    wanted = page.locator(f'#events [data-type="{event}"]', has_text=model).first
    seq = wanted.get_attribute("data-seq")
    assert seq is not None
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
        if wanted.get_attribute("aria-current") == "true":
            return seq
    raise AssertionError(f"the slider never came to record {seq}")


def test_buttons_do_what_they_say_and_keep_the_focus(small: Service, page: Page) -> None:
    small.mlxctl("load", BUNDLED)
    page.goto(small.url)
    row = page.locator(f'#models tr[data-model="{BUNDLED}"]')
    row.get_by_role("button", name=f"pin {BUNDLED}").focus()
    page.keyboard.press("Enter")
    expect(row.locator(".until")).to_have_text("pinned")
    expect(page.locator('#events [data-type="model.pinned"]').first).to_contain_text(BUNDLED)

    unpin = row.get_by_role("button", name=f"unpin {BUNDLED}")
    unpin.focus()
    small.mlxctl("ttl", BUNDLED, "1h")  # a record, and so another drawing
    expect(page.locator('#events [data-type="model.ttl_changed"]').first).to_be_visible()
    expect(unpin).to_be_focused()
    page.keyboard.press("Enter")
    expect(row.locator(".until")).to_contain_text("in ")

    row.get_by_role("button", name="why").click()
    expect(page.locator("#about-model")).to_have_value(BUNDLED)
    assert all(BUNDLED in line for line in page.locator("#events .what").all_inner_texts())
    row.get_by_role("button", name="unload").click()
    expect(row).to_have_count(0)


def test_what_a_button_could_not_do_stays_to_be_read(small: Service, page: Page) -> None:
    small.mlxctl("load", BUNDLED)
    page.goto(small.url)
    row = page.locator(f'#models tr[data-model="{BUNDLED}"]')
    expect(row).to_be_visible()
    page.route("**/pool/pin", lambda route: route.fulfill(status=503, json=REFUSAL))
    before = page.locator("#about").inner_text()
    row.get_by_role("button", name=f"pin {BUNDLED}").click()
    expect(page.locator("#notices")).to_contain_text("read-only")
    expect(page.locator("#about")).not_to_have_text(before)  # time goes on: drawn again
    expect(page.locator("#notices")).to_contain_text("read-only")
    row.get_by_role("button", name="unload").click()
    expect(page.locator("#notices")).to_be_empty()


def test_a_question_that_failed_goes_back_to_where_it_was_written(
    small: Service, page: Page, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    page.goto(small.url)
    expect(page.locator("#model")).not_to_have_value("")
    page.select_option("#model", BUNDLED)
    page.set_input_files("#file", broken)
    ask(page, BUNDLED, "What is this?")
    expect(page.locator(".assistant.failed .note")).to_contain_text("picture", timeout=SLOW_MS)
    expect(page.locator("#prompt")).to_have_value("What is this?")
    expect(page.locator("#pictures img")).to_have_count(1)


def test_a_file_that_cannot_be_shown_to_the_model_is_refused_in_words(
    small: Service, page: Page, tmp_path: Path
) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("words", "utf-8")
    page.goto(small.url)
    expect(page.locator("#model")).not_to_have_value("")
    page.select_option("#model", BUNDLED)
    page.set_input_files("#file", notes)
    expect(page.locator("#refused")).to_have_text("notes.txt: not a PNG, JPEG, WebP or GIF picture")
    pictures = [tmp_path / f"{number}.png" for number in range(9)]
    for picture in pictures:
        picture.write_bytes(RED_SQUARE.read_bytes())
    page.set_input_files("#file", pictures)
    expect(page.locator("#refused")).to_contain_text("at most 8 pictures")
    expect(page.locator("#pictures img")).to_have_count(8)


def test_an_answer_leaves_the_focus_where_it_is(small: Service, page: Page) -> None:
    small.mlxctl("load", BUNDLED)
    page.goto(small.url)
    expect(page.locator("#model")).to_have_value(BUNDLED)  # in memory, and so offered first
    ask(page, BUNDLED, "Hello!")
    page.focus("#slider")
    expect(page.locator(".assistant .note")).to_contain_text("tokens", timeout=SLOW_MS)
    expect(page.locator("#send")).to_be_visible()
    expect(page.locator("#slider")).to_be_focused()


def test_it_goes_on_after_the_bridge_was_away(small: Service, page: Page) -> None:
    with started(small.home, "http_bridge", "--port", "0") as (_, line):
        port = line["port"]
        page.goto(f"http://127.0.0.1:{port}")
        expect(page.locator("#health")).to_have_text("serving")
        expect(page.locator("#events li").first).to_be_visible()
    expect(page.locator("#health")).to_have_attribute("data-tone", "bad")
    small.mlxctl("load", BUNDLED)
    with started(small.home, "http_bridge", "--port", str(port)):
        expect(page.locator("#health")).to_have_text("serving", timeout=15_000)
        expect(page.locator('#events [data-type="load.ready"]').first).to_contain_text(BUNDLED)
        rows = page.locator("#events li").all()
        shown = [(row.get_attribute("data-seq"), row.get_attribute("data-type")) for row in rows]
    told = [
        (str(record["seq"]), event["type"])
        for record in small.log_lines()
        for event in record["events"]
        if event["type"] != "usage.recorded"
    ]
    assert sorted(shown) == sorted(told), "nothing twice, nothing left out"


def test_a_key_is_asked_for_and_kept_for_the_tab(
    small: Service, page: Page, tmp_path: Path
) -> None:
    config = small.home / "config.toml"
    before = config.read_text("utf-8")
    keys = json.dumps([hashed_key("open sesame")])
    config.write_text(before + f"[http]\napi_keys = {keys}\n", "utf-8")
    try:
        with started(small.home, "http_bridge", "--port", "0") as (_, line):
            page.goto(f"http://127.0.0.1:{line['port']}")
            page.fill("#key", "open sesame")
            page.keyboard.press("Enter")
            expect(page.locator("#health")).to_have_text("serving")
            page.reload()
            expect(page.locator("#health")).to_have_text("serving")
            expect(page.locator("#key-dialog")).to_be_hidden()
    finally:
        config.write_text(before, "utf-8")


def test_nothing_is_wider_than_the_window(small: Service, page: Page, tmp_path: Path) -> None:
    small.mlxctl("load", BUNDLED)
    long = tmp_path / "a-model-of-a-family-with-a-very-long-name-Instruct-2507-4bit-DWQ"
    known = json.loads(small.mlxctl("models", "--json").stdout)["models"]
    shutil.copytree(next(one["path"] for one in known if one["name"] == BUNDLED), long)
    small.mlxctl("load", str(long))
    page.goto(small.url)
    expect(page.locator("#about-model option", has_text=long.name)).to_have_count(1)
    for width in (380, 1024, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    small.mlxctl("unload", long.name)


def test_the_buttons_of_a_model_can_be_reached_at_every_width(small: Service, page: Page) -> None:
    small.mlxctl("load", BUNDLED)
    page.goto(small.url)
    unload = page.get_by_role("button", name=f"unload {BUNDLED}")
    for width in (380, 700, 1024, 1440):
        page.set_viewport_size({"width": width, "height": 800})
        expect(unload).to_be_in_viewport(ratio=1)
