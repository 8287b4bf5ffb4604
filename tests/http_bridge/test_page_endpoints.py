"""The page's files: what they are served with, and that they ask nobody else for anything."""

import re
from importlib import resources

import pytest

from daemon.wire.settings import HttpSettings, hashed_key
from tests.fakes.daemon import FakeModel, says
from tests.http_bridge.conftest import OpenSetup

FOLDER = resources.files("http_bridge") / "page"
FILES = {entry.name: entry.read_text("utf-8") for entry in FOLDER.iterdir() if entry.is_file()}


@pytest.mark.anyio
async def test_files_need_no_key_and_say_what_they_may_do(open_setup: OpenSetup) -> None:
    async with open_setup(
        FakeModel("m", says()), http=HttpSettings(port=0, api_keys=(hashed_key("secret"),))
    ) as setup:
        page = await setup.http.get("/")
        script = await setup.http.get("/page/main.js")
        again = await setup.http.get(
            "/page/main.js", headers={"If-None-Match": script.headers["etag"]}
        )
        pool = await setup.http.get("/pool")
    assert page.status_code == script.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert script.headers["content-type"] == "text/javascript; charset=utf-8"
    policy = page.headers["content-security-policy"].split("; ")
    assert {"default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"
    assert (again.status_code, again.content) == (304, b"")
    assert pool.status_code == 401, "what the page shows needs the key"


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["nothing.js", "..%2Frun.py", "%2Fetc%2Fpasswd", "__init__.py"])
async def test_only_the_pages_own_files(open_setup: OpenSetup, name: str) -> None:
    async with open_setup(FakeModel("m", says())) as setup:
        assert (await setup.http.get(f"/page/{name}")).status_code == 404


def test_every_file_that_is_named_is_there() -> None:
    named = {
        name
        for text in FILES.values()
        for name in re.findall(r'(?:/page/|from "\./)([\w.-]+)', text)
    }
    assert named
    assert named <= FILES.keys()


def test_nothing_is_asked_of_anybody_else() -> None:
    for name, text in FILES.items():
        addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s\"')]*", text))
        allowed = {
            "http://www.w3.org/2000/svg",  # the name of SVG, which is never fetched
            "https://html.spec.whatwg.org/multipage/server-sent-events.html",  # in a comment
        }
        assert addresses <= allowed, name


def test_text_is_never_read_as_html() -> None:
    for name, text in FILES.items():
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text
        ), name
        assert not re.search(r"""\sstyle=["']|\son[a-z]+=["']""", text), name
