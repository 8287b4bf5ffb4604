"""Reading a model folder's files: JSON, weights, chat template, identity.

Everything here names the file at fault, and the line where there is one. Nothing blocks on
what is not a regular file; that a whole volume hangs is the caller's concern.
"""

import contextlib
import hashlib
import json
import os
import re
import stat
from pathlib import Path
from typing import Any, Final

from daemon.models.safetensors import Tensor, read_header
from daemon.wire.errors import Code, MlxdError

JSON_BYTES_MAX: Final = 64 << 20
_INDEX: Final = "model.safetensors.index.json"
_SHARD: Final = re.compile(r"(.*-)(\d{1,6})(-of-)(\d{1,6})(\.safetensors)")
_PICKLES: Final = (".bin", ".pt", ".pth", ".ckpt", ".pkl")


def list_files(folder: Path) -> dict[str, os.stat_result]:
    """The files that lie directly in a folder, links followed; broken links are left out.

    Raises:
        MlxdError: ``not_found`` if there is no such folder, ``incompatible`` if it cannot
            be read.
    """
    try:
        files: dict[str, os.stat_result] = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    found = entry.stat()
                except OSError:
                    continue
                if stat.S_ISREG(found.st_mode):
                    files[entry.name] = found
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MlxdError(
            Code.NOT_FOUND,
            f"there is no model folder {folder}; correct the path, or download the model again",
            field=str(folder),
        ) from error
    except OSError as error:
        raise MlxdError(
            Code.INCOMPATIBLE,
            f"the model folder {folder} cannot be read ({error.strerror}); "
            "let this user read it, or mount its volume",
            field=str(folder),
        ) from error
    return dict(sorted(files.items()))


def fingerprint(folder: Path) -> str:
    """A text that changes when any file of the folder is added, removed or written.

    Made of names, sizes and modification times, so it costs no reading; "" if there is no
    such folder.
    """
    try:
        files = list_files(folder)
    except MlxdError:
        return ""
    return fingerprint_of(files)


def fingerprint_of(files: dict[str, os.stat_result]) -> str:
    """:func:`fingerprint` of files that are listed already."""
    facts = "".join(f"{name}\0{f.st_size}\0{f.st_mtime_ns}\0" for name, f in sorted(files.items()))
    return hashlib.sha256(facts.encode("utf-8", "surrogateescape")).hexdigest()[:32]


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object from a file, as Python reads it: NaN and Infinity are fine.

    Raises:
        MlxdError: ``incompatible`` naming the file, and the line of a syntax error.
    """
    try:
        if path.stat().st_size > JSON_BYTES_MAX:
            raise broken(path, "is too large to be what its name says")
        value = json.loads(path.read_bytes())
    except json.JSONDecodeError as error:
        raise broken(path, f"is not JSON: line {error.lineno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise broken(path, f"is not JSON ({error})") from error
    except OSError as error:
        raise broken(path, f"cannot be read ({error.strerror})") from error
    if not isinstance(value, dict):
        raise broken(path, "is not a JSON object")
    return value


def read_weights(
    folder: Path, files: dict[str, os.stat_result], *, only_named_model: bool
) -> dict[str, Tensor]:
    """Every tensor that loading the folder reads, from the headers of its safetensors files.

    Args:
        only_named_model: Take ``model*.safetensors``, as mlx-lm does; otherwise what the index
            names, or every file, as mlx-vlm and mlx-audio do.

    Raises:
        MlxdError: ``incompatible`` if there are no such files, a shard is missing, or a file
            is damaged; the file is named.
    """
    index = _read_index(folder, files)
    indexed = _indexed_shards(folder, files, index)
    names = [
        name
        for name in files
        if name.endswith(".safetensors") and name != "consolidated.safetensors"
    ]
    if only_named_model:
        loaded = [name for name in names if name.startswith("model")]
    else:
        loaded = sorted(indexed) or names
    if not loaded:
        raise _no_weights(folder, files, names)
    _check_numbering(folder, loaded)
    tensors: dict[str, Tensor] = {}
    for name in loaded:
        tensors.update(read_header(folder / name))
    if not tensors:
        raise broken(folder / loaded[0], "holds no weights")
    _check_index(folder, {n: shard for n, shard in index.items() if shard in loaded}, tensors)
    return tensors


def read_chat_template(folder: Path, files: dict[str, os.stat_result]) -> str:
    """The chat templates of a folder, joined; "" if it has none.

    They may lie in chat_template.jinja, chat_template.json, tokenizer_config.json or
    processor_config.json. A broken file counts as none: the engine will name it.
    """
    texts: list[str] = []
    if "chat_template.jinja" in files:
        with contextlib.suppress(OSError, ValueError):
            texts.append((folder / "chat_template.jinja").read_text("utf-8"))
    for name in ("chat_template.json", "tokenizer_config.json", "processor_config.json"):
        if name not in files:
            continue
        try:
            template = read_json(folder / name).get("chat_template")
        except MlxdError:
            continue
        choices = template if isinstance(template, list) else [template]
        for choice in choices:
            text = choice.get("template") if isinstance(choice, dict) else choice
            if isinstance(text, str):
                texts.append(text)
    return "\n".join(texts)


def broken(path: Path, what: str) -> MlxdError:
    """``incompatible``: a file of the folder is not what it must be."""
    return MlxdError(
        Code.INCOMPATIBLE,
        f"{path.name} in {path.parent} {what}; correct it, or download the model again",
        field=path.name,
    )


def _read_index(folder: Path, files: dict[str, os.stat_result]) -> dict[str, str]:
    """Which shard holds which tensor, as the index says it. Empty without an index."""
    if _INDEX not in files:
        return {}
    weight_map = read_json(folder / _INDEX).get("weight_map")
    if not isinstance(weight_map, dict):
        raise broken(folder / _INDEX, "has no weight_map")
    return {name: str(shard) for name, shard in weight_map.items()}


def _indexed_shards(
    folder: Path, files: dict[str, os.stat_result], index: dict[str, str]
) -> set[str]:
    """The shards that the index names; all of them are there."""
    shards = set(index.values())
    if missing := sorted(shards - files.keys()):
        raise _missing(folder, missing, len(shards))
    return shards


def _check_index(folder: Path, index: dict[str, str], tensors: dict[str, Tensor]) -> None:
    """A tensor that the index has and no shard: files of two downloads or conversions."""
    absent = sorted(index.keys() - tensors.keys())
    if absent:
        more = f" and {len(absent) - 1} more tensors" if len(absent) > 1 else ""
        what = f'names "{absent[0][:80]}"{more}, but {index[absent[0]]} does not hold it'
        raise broken(folder / _INDEX, what)


def _check_numbering(folder: Path, names: list[str]) -> None:
    """Without an index, ``…-00002-of-00003.safetensors`` still says what must be there."""
    for name in names:
        if match := _SHARD.fullmatch(name):
            start, number, middle, count, end = match.groups()
            expected = [
                f"{start}{shard:0{len(number)}}{middle}{count}{end}"
                for shard in range(1, min(int(count), 9999) + 1)
            ]
            if missing := [shard for shard in expected if shard not in names]:
                raise _missing(folder, missing, int(count))


def _missing(folder: Path, missing: list[str], count: int) -> MlxdError:
    more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
    hint = "finish the download"
    return MlxdError(
        Code.INCOMPATIBLE,
        f"{missing[0]}{more} of {count} weight files is missing in {folder}; {hint}",
        hint=hint,
        field=missing[0],
    )


def _no_weights(folder: Path, files: dict[str, os.stat_result], others: list[str]) -> MlxdError:
    if others:
        what = f"{others[0]} is not named model*.safetensors, and only those are loaded"
        hint, name = "rename it to model.safetensors", others[0]
    elif gguf := next((n for n in files if n.lower().endswith(".gguf")), None):
        what, name = f"{gguf} is GGUF, which MLX models are not", gguf
        hint = "get the MLX conversion of this model, or convert the original with mlx_lm.convert"
    elif pickle := next((n for n in files if n.endswith(_PICKLES)), None):
        what, name = f"{pickle} is a pickle, which can run code when loaded", pickle
        hint = "convert the model to safetensors, for example with mlx_lm.convert"
    elif npz := next((n for n in files if n.endswith(".npz")), None):
        what, name = f"{npz} is an old weight format", npz
        hint = "get a conversion with model.safetensors"
    else:
        what, name, hint = "there are no weights", "model.safetensors", "finish the download"
    return MlxdError(
        Code.INCOMPATIBLE, f"no safetensors in {folder}: {what}; {hint}", hint=hint, field=name
    )
