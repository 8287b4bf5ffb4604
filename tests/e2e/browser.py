"""A headless Chromium for the tests of the page: found, or installed by ``make browser``."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, sync_playwright

SYSTEM: Final = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
)
ARGUMENTS: Final = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
SKIP: Final = "MLXD_NO_BROWSER"
"""Set by people who want the other tests without a browser; then the page is not tested."""


def find() -> str | None:
    """The browser of this machine, or the one that Playwright has downloaded."""
    for name in SYSTEM:
        if found := shutil.which(name):
            return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@contextmanager
def open_browser() -> Iterator[Browser]:
    """A fresh one, with a profile of its own."""
    executable = find()
    assert executable, f"no Chromium is here: run `make browser`, or set {SKIP}=1"
    # Chromium's own sandbox refuses to run for root, as containers have it.
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=executable, args=[*ARGUMENTS, *sandbox]
        )
        try:
            yield browser
        finally:
            browser.close()


def install() -> None:
    """Debian's package where that can be had, else what Playwright downloads."""
    if shutil.which("apt-get") and os.geteuid() == 0:
        environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], env=environ, check=True)
        packages = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"]
        subprocess.run(packages, env=environ, check=True, stdout=subprocess.DEVNULL)
    else:
        subprocess.run(
            [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"], check=True
        )


def main() -> None:
    """Make sure that there is a browser, unless nobody wants one."""
    if os.environ.get(SKIP) or find():
        return
    sys.stdout.write("installing Chromium for the tests of the page …\n")
    install()


if __name__ == "__main__":
    main()
