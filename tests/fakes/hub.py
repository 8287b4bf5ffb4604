"""A Hugging Face hub on loopback: the few endpoints that pulling a model needs.

For tests of ``mlxctl pull`` with the real ``huggingface_hub`` over real HTTP: repositories with
revisions, large files that lie elsewhere behind a redirect, ranges, and the ways to fail that
the real one has. Everything asked is in ``asked``.
"""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LARGE = 1000
"""From so many bytes on a file counts as large: kept elsewhere, named by its SHA-256."""


class Repo:
    """One repository.

    Attributes:
        revisions: Branches and tags, to commits.
        commits: Commits, to files.
        refuse: Answer everything with this status and error code.
        token: Who may come in; None lets everybody.
    """

    def __init__(self, files: dict[str, bytes]) -> None:
        self.revisions = {"main": "a" * 40}
        self.commits = {"a" * 40: files}
        self.refuse: tuple[int, str] | None = None
        self.token: str | None = None


class FakeHub:
    """Made by :func:`open_fake_hub`.

    Attributes:
        asked: "GET /path Range" of every request, in order.
        cut_after: A large file's connection breaks after so many bytes, once each entry.
        hold_after: A large file stops coming after so many bytes until ``release`` is set.
        damage: Large files arrive with a wrong byte.
    """

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.asked: list[str] = []
        self.cut_after: list[int] = []
        self.hold_after: int | None = None
        self.release = threading.Event()
        self.damage = False
        self.no_ranges = False
        self.endpoint = ""


def blob(content: bytes) -> str:
    """The name of a large file's content."""
    return hashlib.sha256(content).hexdigest()


def git_oid(content: bytes) -> str:
    """The name that git gives a small file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def listing(files: dict[str, bytes]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for name, content in files.items():
        entry: dict[str, Any] = {
            "type": "file",
            "path": name,
            "size": len(content),
            "oid": git_oid(content),
        }
        if len(content) >= LARGE:
            entry["lfs"] = {"oid": blob(content), "size": len(content), "pointerSize": 134}
        entries.append(entry)
    return entries


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
        """Tests read ``asked``."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        wanted = self.headers.get("Range")
        self.hub.asked.append(f"{self.command} {path}" + (f" {wanted}" if wanted else ""))
        if path.startswith("/cdn/") and "Authorization" in self.headers:
            self.hub.asked.append("a token that was not for us")
        parts = path.strip("/").split("/")
        if parts[0] == "cdn":
            self._large(self._content(parts[1]), body=body)
            return
        api = parts[:2] == ["api", "models"]
        name = "/".join(parts[2:4] if api else parts[:2])
        repo = self.hub.repos.get(name)
        if repo is None:
            self._refuse(404, "RepoNotFound")
        elif repo.refuse is not None:
            self._refuse(*repo.refuse)
        elif repo.token and self.headers.get("Authorization") != f"Bearer {repo.token}":
            self._refuse(403, "GatedRepo")
        elif api:
            self._api(name, repo, parts[4:])
        else:
            self._file(repo, parts[3], "/".join(parts[4:]), body=body)

    def _api(self, name: str, repo: Repo, parts: list[str]) -> None:
        commit = repo.revisions.get(parts[1], parts[1]) if len(parts) > 1 else "a" * 40
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound")
        elif parts[0] == "tree":
            self._json(listing(repo.commits[commit]))
        else:
            files = [{"rfilename": file} for file in repo.commits[commit]]
            self._json({"_id": "1", "id": name, "modelId": name, "sha": commit, "siblings": files,
                        "tags": [], "private": False, "downloads": 0, "likes": 0})  # fmt: skip

    def _file(self, repo: Repo, commit: str, name: str, *, body: bool) -> None:
        content = repo.commits.get(commit, {}).get(name)
        if content is None:
            self._refuse(404, "EntryNotFound")
            return
        large = len(content) >= LARGE
        etag = blob(content) if large else git_oid(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"'}
        if large:
            # Another host, as with the real one: who asks must not send a token there.
            place = f"{self.hub.endpoint.replace('127.0.0.1', 'localhost')}/cdn/{etag}"
            linked = {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
            self._send(302, {**headers, **linked, "Location": place}, b"", body=body)
        else:
            self._send(200, headers, content, body=body)

    def _content(self, wanted: str) -> bytes:
        return next(
            content
            for repo in self.hub.repos.values()
            for files in repo.commits.values()
            for content in files.values()
            if blob(content) == wanted
        )

    def _large(self, content: bytes, *, body: bool) -> None:
        begin = 0
        if (wanted := self.headers.get("Range")) and not self.hub.no_ranges:
            begin = int(wanted.removeprefix("bytes=").partition("-")[0])
        rest = content[begin:]
        if self.hub.damage:
            rest = bytes([rest[0] ^ 1]) + rest[1:]
        self.send_response(206 if begin or (wanted and not self.hub.no_ranges) else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if not body:
            return
        if self.hub.cut_after:
            self.wfile.write(rest[: self.hub.cut_after.pop(0)])
            self.close_connection = True
            return
        if self.hub.hold_after is not None:
            self.wfile.write(rest[: self.hub.hold_after])
            self.wfile.flush()
            self.hub.release.wait(60)
            rest = rest[self.hub.hold_after :]
        self.wfile.write(rest)

    def _json(self, value: object) -> None:
        self._send(200, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}")

    def _send(
        self, status: int, headers: dict[str, str], content: bytes, *, body: bool = True
    ) -> None:
        self.send_response(HTTPStatus(status))
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(content)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients go away; that is what some tests are about."""


@contextmanager
def open_fake_hub() -> Iterator[FakeHub]:
    """A hub for the length of the block."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = _Server(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        hub.release.set()
        server.shutdown()
        thread.join()
        server.server_close()
