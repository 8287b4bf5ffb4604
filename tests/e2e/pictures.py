"""The README's pictures, taken of the real thing: ``make pictures``."""

import fcntl
import io
import os
import pty
import struct
import subprocess
import sys
import termios
from typing import Final

from playwright.sync_api import Browser, Page, expect
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from tests.e2e.browser import open_browser
from tests.e2e.service import Service, config_toml, running_service, smollm
from tests.e2e.vision_models import BUNDLED
from tests.models import REPO_ROOT

TARGET: Final = REPO_ROOT / "docs" / "pictures"
RED_SQUARE: Final = REPO_ROOT / "tests" / "fixtures" / "images" / "red_square.png"
TEXT: Final = next(iter(smollm()))
COLUMNS: Final = 118
THEME: Final = TerminalTheme(
    (28, 28, 26),
    (235, 232, 226),
    [
        *((60, 58, 54), (240, 138, 128), (108, 199, 149), (227, 171, 82)),
        *((127, 176, 245), (205, 127, 189), (85, 188, 201), (235, 232, 226)),
    ],
)
COMMANDS: Final = (
    ("status",),
    ("why", BUNDLED),
    ("events", "--model", BUNDLED),
)
PAGE: Final = """<!doctype html><style>
body {{ margin: 0; background: {background}; width: max-content; }}
pre {{ margin: 0; padding: 18px 22px; font: 13px/1.4 "DejaVu Sans Mono", Menlo, monospace;
       color: {foreground}; }}
</style><pre><code>{code}</code></pre>"""


def main() -> None:
    """Live through a load, an eviction and a question, and take pictures of it."""
    TARGET.mkdir(parents=True, exist_ok=True)
    config = config_toml(smollm()).replace('memory = "16G"', 'memory = "1G"\nkv_tokens = 4096')
    with running_service(config) as service, open_browser() as browser:
        with browser.new_context(viewport={"width": 1280, "height": 800}) as context:
            page = context.new_page()
            page.goto(service.url)
            live(service, page)
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=TARGET / f"page-{scheme}.png")
        terminal(service, browser)


def live(service: Service, page: Page) -> None:
    """What the pictures show: two models that take turns, and an answer about a picture."""
    service.mlxctl("load", BUNDLED)
    service.mlxctl("run", TEXT, "Say hello.", "--max-tokens", "8")
    expect(page.locator("#health")).to_have_text("serving")
    page.select_option("#model", BUNDLED)
    page.set_input_files("#file", RED_SQUARE)
    page.fill("#prompt", "Describe this image in one sentence. What shape and color is it?")
    page.press("#prompt", "Enter")
    expect(page.locator(".assistant .note")).to_contain_text("tok/s", timeout=60_000)
    expect(page.locator(f'#models tr[data-model="{BUNDLED}"] .state')).to_have_text("idle")
    service.mlxctl("pin", BUNDLED)
    expect(page.locator('#events [data-type="model.pinned"]')).to_be_visible()
    page.evaluate("document.activeElement.blur()")


def terminal(service: Service, browser: Browser) -> None:
    """What a person reads in a terminal, as a picture."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    for arguments in COMMANDS:
        console.print(Text(f"$ mlxctl {' '.join(arguments)}", style="bold"))
        console.print(Text.from_ansi(on_terminal(service, arguments)))
    html = console.export_html(theme=THEME, inline_styles=True, code_format=PAGE)
    page = browser.new_page(viewport={"width": 1100, "height": 200})
    page.set_content(html)
    page.locator("pre").screenshot(path=TARGET / "terminal.png")


def on_terminal(service: Service, arguments: tuple[str, ...]) -> str:
    """What ``mlxctl`` prints when a person looks."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
    environ = {**service.environ, "TERM": "xterm-256color"}
    command = [sys.executable, "-m", "ctl", *arguments]
    with subprocess.Popen(command, env=environ, stdout=theirs, stderr=theirs, stdin=theirs):
        os.close(theirs)
        said = b""
        try:
            while part := os.read(ours, 65_536):
                said += part
        except OSError:
            pass  # how Linux says that nobody writes any more
    os.close(ours)
    return said.decode().replace("\r\n", "\n").rstrip() + "\n"


if __name__ == "__main__":
    main()
