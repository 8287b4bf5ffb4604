"""Prefix caches that outlive their worker: blocks of keys and values as files.

A block is what a model computed for ``BLOCK_TOKENS`` tokens of a prompt, or for the fewer at
a prompt's end. Its file's name says where it lies in the prompt, the digest of all tokens up
to its end, and the digest of the file itself: finding it opens nothing, and a damaged one is
known before it is used. Tokens are not in it. The folder is the model's own: its name is
made of the model files' identity, the adapter's, and the library's version.

Files are written in pieces while the worker has nothing to do. All models together share the
bound; beyond it the files not used for longest go.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import msgspec
import structlog

from daemon.wire.data import Begin
from daemon.worker.engines.prefix import Found, PrefixTree, digests

BLOCK_TOKENS: Final = 256
WORTH_TOKENS: Final = 128
"""Shorter prompts are computed as fast as they are read."""

FILES_MAX: Final = 4096
FORMAT: Final = "1"
_SUFFIX: Final = ".safetensors"

log = structlog.get_logger()


class Block(msgspec.Struct, frozen=True):
    """Tokens ``begin`` to ``end`` of a prompt, whose first ``end`` tokens have ``digest``."""

    begin: int
    end: int
    digest: str


class Shelf:
    """The blocks of one model on disk.

    Args:
        folder: Of this model alone; made when the first block is written.
        bytes_max: Of all files under the folder's parent.
    """

    def __init__(self, folder: Path, bytes_max: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._files: dict[Block, Path] | None = None

    def __contains__(self, block: Block) -> bool:
        return block in self._known()

    def behind(self, tokens: Sequence[int], done: int) -> list[Block]:
        """Blocks that lead on from some point in the first ``done`` tokens, beyond them."""
        known = self._known()
        ends = sorted({block.end for block in known if done < block.end <= len(tokens)})
        names = dict(zip(ends, digests(tokens, ends), strict=True))
        chain: list[Block] = []
        at = done - done % BLOCK_TOKENS
        matching = [b for b in known if b.end in names and b.digest == names[b.end].hex()]
        for block in sorted(matching, key=lambda b: (b.begin, -b.end)):
            if block.begin == at:
                chain.append(block)
                at = block.end
        return chain

    def read(self, block: Block) -> list[mx.array] | None:
        """Keys and values of each layer; None if the file is gone, or was damaged."""
        path = self._known()[block]
        try:
            digest = _digest(path)
            arrays = mx.load(str(path)) if digest == _content_of(path) else None
            if isinstance(arrays, dict):
                found = [arrays[str(i)] for i in range(len(arrays))]
                mx.eval(found)
                os.utime(path)
                return found
            log.warning("prefix.damaged", file=path.name)
        except (OSError, RuntimeError) as error:  # another worker may have removed it
            log.warning("prefix.unreadable", file=path.name, why=str(error))
        self._known().pop(block, None)
        _removed(path)
        return None

    def write(self, block: Block, arrays: list[mx.array]) -> None:
        """Keep a block; a disk that is full or fails only means that it is not kept."""
        draft = self._folder / f"draft-{os.getpid()}{_SUFFIX}"
        try:
            for folder in (self._folder.parent, self._folder):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(draft, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600))
            mx.save_safetensors(str(draft), {str(i): array for i, array in enumerate(arrays)})
            name = f"{block.begin}-{block.end}-{block.digest}-{_digest(draft)}{_SUFFIX}"
            draft.replace(self._folder / name)
        except (OSError, RuntimeError) as error:
            log.warning("prefix.unwritable", folder=str(self._folder), why=str(error))
            _removed(draft)
            return
        self._known()[block] = self._folder / name
        self._bound()

    def _known(self) -> dict[Block, Path]:
        """What lies there; read once, when it is first asked for."""
        if self._files is None:
            paths = self._folder.glob(f"*{_SUFFIX}") if self._folder.is_dir() else ()
            self._files = {block: path for path in paths if (block := _block(path)) is not None}
        return self._files

    def _bound(self) -> None:
        """Remove files, of whichever model, until the others fit."""
        files = list(_sizes(self._folder.parent))
        held = sum(size for _, _, size, _ in files)
        excess_files = len(files) - FILES_MAX
        for _, _, size, path in sorted(files):
            if held <= self._bytes_max and excess_files <= 0:
                return
            if not _removed(path):
                continue
            held, excess_files = held - size, excess_files - 1
            if path.parent == self._folder and (block := _block(path)) is not None:
                self._known().pop(block, None)


class KeptOnDisk:
    """A :class:`~daemon.worker.engines.prefix.PrefixStore`: a tree in memory before a shelf."""

    cuts_anywhere = True

    def __init__(self, tree: PrefixTree, shelf: Shelf) -> None:
        self._tree = tree
        self._shelf = shelf
        self._plan: Iterator[tuple[list[int], Block]] | None = None

    @property
    def nbytes(self) -> int:
        return self._tree.nbytes

    def find(self, tokens: Sequence[int]) -> Found:
        found = self._tree.find(tokens)
        blocks = self._shelf.behind(tokens[:-1], found.tokens)
        return self._tree.find(tokens) if self._take_down(tokens, blocks) else found

    def keep(self, tokens: Sequence[int], take: Callable[[], list[Any]]) -> None:
        self._plan = None
        self._tree.keep(tokens, take)

    def trim(self, bytes_max: int) -> None:
        self._tree.trim(bytes_max)

    def put_away(self) -> bool:
        """Write one block; False once everything in memory is on disk as well."""
        if self._plan is None:
            self._plan = self._unwritten()
        for tokens, block in self._plan:
            if block in self._shelf:
                continue
            arrays = self._tree.cut(tokens, block.begin, block.end)
            if arrays is not None:
                self._shelf.write(block, arrays)
                return True
        return False

    def _unwritten(self) -> Iterator[tuple[list[int], Block]]:
        for tokens in self._tree.conversations():
            if len(tokens) >= WORTH_TOKENS:
                ends = [*range(BLOCK_TOKENS, len(tokens), BLOCK_TOKENS), len(tokens)]
                for end, digest in zip(ends, digests(tokens, ends), strict=True):
                    begin = (end - 1) // BLOCK_TOKENS * BLOCK_TOKENS
                    yield tokens, Block(begin, end, digest.hex())

    def _take_down(self, tokens: Sequence[int], blocks: list[Block]) -> bool:
        """Read blocks into the tree; whether any was as it should be."""
        taken = False
        for block in blocks:
            arrays = self._shelf.read(block)
            if arrays is None or not self._tree.add(tokens[: block.end], block.begin, arrays):
                break
            taken = True
        return taken


def open_shelf(begin: Begin) -> Shelf | None:
    """Where this model's blocks lie; None if none are kept."""
    if begin.prefix_dir is None or begin.prefix_disk_bytes <= 0:
        return None
    version = metadata.version("mlx-lm")
    told = "\0".join((FORMAT, version, begin.path, begin.identity, begin.adapter or ""))
    name = hashlib.blake2b(told.encode(), digest_size=12).hexdigest()
    return Shelf(Path(begin.prefix_dir) / name, begin.prefix_disk_bytes)


def _sizes(root: Path) -> Iterator[tuple[int, int, int, Path]]:
    """Every file: the minute of its last use, how near a prompt's beginning, size, path.

    Of what was used together the end goes first: without its beginning it is worth nothing.
    """
    for path in root.glob(f"*/*{_SUFFIX}"):
        try:
            stat = path.stat()
        except OSError:
            continue
        block = _block(path)
        nearness = 0 if block is None else -block.begin
        yield int(stat.st_mtime // 60), nearness, stat.st_size, path


def _removed(path: Path) -> bool:
    """Remove a file; whether it is gone."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("prefix.unremovable", file=path.name, why=str(error))
        return False
    return True


def _block(path: Path) -> Block | None:
    parts = path.stem.split("-")
    if len(parts) != 4 or not (parts[0].isdecimal() and parts[1].isdecimal()):
        return None
    return Block(int(parts[0]), int(parts[1]), parts[2])


def _content_of(path: Path) -> str:
    return path.stem.rpartition("-")[2]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
