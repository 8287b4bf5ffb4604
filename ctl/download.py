"""Large files of the hub: in parallel, each going on where it was interrupted, and checked.

``huggingface_hub`` throws an unfinished file away when it is interrupted. Models are many
gigabytes in few files, so their content is fetched here, into a part that stays, and takes
its place in the cache once its SHA-256 is right. The library does the rest.
"""

import fcntl
import hashlib
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import BinaryIO, Final

from ctl.hub import Plan, RemoteFile, hub_faults
from daemon.wire.errors import Code, MlxdError
from daemon.wire.units import format_bytes

LARGE_BYTES: Final = 4_000_000
"""Smaller files are fetched again whole, by the library."""
PLAIN_HTTP_BYTES_MAX: Final = 50_000_000_000
"""The hub serves larger files over its own protocol only: the library's business."""
SPARE_BYTES: Final = 500_000_000
"""What a disk keeps free: a system without any room behaves badly."""
AT_ONCE: Final = 4
PART: Final = ".mlxctl.incomplete"
"""The cache calls what ends so unfinished, and so do tools that tidy it up."""
CHUNK_BYTES: Final = 1 << 18
READ_TIMEOUT_S: Final = 20.0
TRIES: Final = 5
"""How often in a row a connection may break without a byte having come."""
RETRY_S: Final = 1.0
LEAVE_S: Final = 2.0
"""How long Ctrl-C waits for the files to be closed."""

OnBytes = Callable[[RemoteFile, int], None]
"""Called from several threads with a file and how many more of its bytes are there."""


def large_files(plan: Plan) -> tuple[RemoteFile, ...]:
    """What is fetched here: large content that is not in the cache."""
    return tuple(
        file
        for file in plan.missing()
        if file.sha256 is not None and LARGE_BYTES <= file.size_bytes <= PLAIN_HTTP_BYTES_MAX
    )


def part_bytes(plan: Plan, file: RemoteFile) -> int:
    """How much of ``file`` an earlier pull has left."""
    part = _part(plan, file)
    return min(part.stat().st_size, file.size_bytes) if part.exists() else 0


def check_disk(plan: Plan) -> None:
    """Whether the rest of the model fits on the disk.

    Raises:
        MlxdError: ``busy``: it says how much is missing and where.
    """
    needed = sum(file.size_bytes - part_bytes(plan, file) for file in plan.missing())
    place = next(p for p in (plan.folder, *plan.folder.parents) if p.exists())
    free = shutil.disk_usage(place).free
    if needed and needed + SPARE_BYTES > free:
        raise MlxdError(
            Code.BUSY,
            f"{plan.repo} needs {format_bytes(needed)} more and the disk of {place} has "
            f"{format_bytes(free)} free, of which {format_bytes(SPARE_BYTES)} stay free",
            hint="make room, for example with: mlxctl rm MODEL",
        )


@contextmanager
def only_pull(plan: Plan) -> Iterator[None]:
    """Keep a second pull of the same model away for the length of the block.

    Raises:
        MlxdError: ``conflict`` if one is under way.
    """
    (plan.folder / "blobs").mkdir(parents=True, exist_ok=True)
    locks = plan.hub_dir / ".locks" / plan.folder.name
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / "mlxctl-pull.lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise MlxdError(
                Code.CONFLICT, f"{plan.repo} is being pulled already", field="repo"
            ) from error
        yield


def fetch(plan: Plan, on_bytes: OnBytes) -> None:
    """Bring the large files; what was interrupted goes on where it was.

    Raises:
        MlxdError: The first thing that failed; what has come stays.
        KeyboardInterrupt: Ctrl-C; what has come stays.
    """
    files = large_files(plan)
    waiting: SimpleQueue[RemoteFile] = SimpleQueue()
    for file in files:
        waiting.put(file)
    ended: SimpleQueue[BaseException | None] = SimpleQueue()
    stop = threading.Event()
    # Daemonic: a network that hangs does not keep Ctrl-C from ending the program.
    threads = [
        threading.Thread(target=_work, args=(plan, waiting, ended, on_bytes, stop), daemon=True)
        for _ in files[:AT_ONCE]
    ]
    for thread in threads:
        thread.start()
    try:
        for _ in files:
            if (failure := ended.get()) is not None:
                raise failure
    finally:
        stop.set()
        for thread in threads:
            thread.join(LEAVE_S / len(threads))


def _work(
    plan: Plan,
    waiting: "SimpleQueue[RemoteFile]",
    ended: "SimpleQueue[BaseException | None]",
    on_bytes: OnBytes,
    stop: threading.Event,
) -> None:
    while not stop.is_set():
        try:
            file = waiting.get_nowait()
        except Empty:
            return
        try:
            _fetch(plan, file, on_bytes, stop)
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            ended.put(error)
        else:
            ended.put(None)


def _fetch(plan: Plan, file: RemoteFile, on_bytes: OnBytes, stop: threading.Event) -> None:
    import httpx2  # noqa: PLC0415

    part = _part(plan, file)
    part.touch()
    on_bytes(file, part_bytes(plan, file))
    tries = TRIES
    while (had := part_bytes(plan, file)) < file.size_bytes:
        try:
            with hub_faults(plan.repo, plan.revision), part.open("r+b") as target:
                _stream(plan, file, target, had, on_bytes, stop)
        except MlxdError as error:
            # A connection that breaks in the middle is ordinary: go on with what is missing.
            tries = TRIES if part_bytes(plan, file) > had else tries - 1
            if not isinstance(error.__cause__, httpx2.TransportError) or not tries:
                raise
            stop.wait(RETRY_S)
        if stop.is_set():
            return
    _check(part, file, on_bytes)
    part.replace(plan.blob(file))


def _stream(
    plan: Plan,
    file: RemoteFile,
    target: BinaryIO,
    had: int,
    on_bytes: OnBytes,
    stop: threading.Event,
) -> None:
    """Append what comes to ``target``, from byte ``had`` on, until the end or ``stop``."""
    from huggingface_hub import (  # noqa: PLC0415
        get_hf_file_metadata,
        get_session,
        get_token,
        hf_hub_url,
        hf_raise_for_status,
    )

    url = hf_hub_url(plan.repo, file.name, revision=plan.commit)
    token = get_token()
    place = get_hf_file_metadata(url, token=token).location
    # A store elsewhere has its own signature in the address, and is not shown the token.
    known = bool(token) and _host(place) == _host(url)
    headers = {"authorization": f"Bearer {token}"} if known else {}
    # Ranges are of the file's own bytes, so nothing may be compressed on the way.
    headers |= {"Range": f"bytes={had}-", "Accept-Encoding": "identity"}
    with get_session().stream(
        "GET", place, headers=headers, follow_redirects=True, timeout=READ_TIMEOUT_S
    ) as response:
        hf_raise_for_status(response)
        if response.status_code != HTTPStatus.PARTIAL_CONTENT and had:
            on_bytes(file, -had)  # it begins again from the front
            had = 0
        target.truncate(had)
        target.seek(had)
        for chunk in response.iter_raw(CHUNK_BYTES):
            target.write(chunk)
            on_bytes(file, len(chunk))
            if stop.is_set():
                return


def _check(part: Path, file: RemoteFile, on_bytes: OnBytes) -> None:
    """Throw away what is not what the hub has promised."""
    with part.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != file.sha256:
        part.unlink()
        on_bytes(file, -file.size_bytes)
        raise MlxdError(
            Code.BUSY,
            f"{file.name} arrived damaged: its SHA-256 is {found}, and the hub says {file.sha256}",
            hint="the damaged file is removed; pull again",
        )


def _part(plan: Plan, file: RemoteFile) -> Path:
    blob = plan.blob(file)
    return blob.with_name(blob.name + PART)


def _host(url: str) -> str:
    return url.split("/")[2]
