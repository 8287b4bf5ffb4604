"""Bad input gets a typed error that names what is wrong, and the pool does not change."""

import base64
import json
import struct
import zlib
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from tests.e2e.service import Service
from tests.fixtures.images.generate_test_images import FOLDER

pytestmark = pytest.mark.e2e

HELLO = [{"role": "user", "content": "Hello!"}]


def bomb() -> bytes:
    """A PNG that claims 20,000 x 20,000 pixels and is small."""
    header = struct.pack(">2I5B", 20_000, 20_000, 8, 2, 0, 0, 0)

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    rows = zlib.compress(bytes(20_000 * 3 + 1) * 64)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def with_picture(data: bytes) -> list[dict[str, Any]]:
    url = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    part = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}]


RED = (FOLDER / "red_square.png").read_bytes()

CASES: dict[str, tuple[dict[str, Any], int, str]] = {
    "no messages": ({"messages": []}, 400, "messages"),
    "unknown role": ({"messages": [{"role": "wizard", "content": "x"}]}, 400, "role"),
    "wrong type": ({"messages": HELLO, "max_tokens": "many"}, 400, "max_tokens"),
    "a boolean is no number": ({"messages": HELLO, "temperature": True}, 400, "temperature"),
    "out of range": ({"messages": HELLO, "temperature": 3}, 400, "temperature"),
    "unknown field": ({"messages": HELLO, "frobnicate": 1}, 400, "frobnicate"),
    "path as a model": ({"model": "../../etc", "messages": HELLO}, 400, "model"),
    "unknown model": ({"model": "no/such-model", "messages": HELLO}, 404, "no/such-model"),
    "truncated picture": ({"messages": with_picture(RED[: len(RED) // 2])}, 400, "content"),
    "not a picture": ({"messages": with_picture(b"GIF89a nonsense")}, 400, "content"),
    "enormous picture": ({"messages": with_picture(bomb())}, 400, "pixel"),
}


@pytest.mark.parametrize("case", CASES)
def test_over_http(service: Service, http: httpx.Client, vision_model: str, case: str) -> None:
    service.mlxctl("load", vision_model)
    seq = service.status().seq
    body, status, named = CASES[case]
    reply = http.post("/v1/chat/completions", json={"model": vision_model, **body})
    assert reply.status_code == status, reply.text
    error = reply.json()["error"]
    assert named in json.dumps(error)
    assert error["message"]
    types = {e["type"] for e in service.events(seq)}
    assert types <= {"usage.recorded"}, "the pool is unchanged"


def test_malformed_json(http: httpx.Client) -> None:
    headers = {"Content-Type": "application/json"}
    reply = http.post("/v1/chat/completions", content=b'{"model": ', headers=headers)
    assert reply.status_code == 400
    assert reply.json()["error"]["type"] == "invalid_request_error"


FOLDERS: dict[str, tuple[dict[str, str | bytes], str]] = {
    "no config": ({"model.safetensors": b""}, "config.json"),
    "broken config": ({"config.json": '{"model_type": '}, "config.json"),
    "code in the folder": (
        {
            "config.json": '{"model_type": "llama", "model_file": "evil.py"}',
            "evil.py": "print('ran')",
        },
        "model_file",
    ),
    "a missing shard": (
        {
            "config.json": '{"model_type": "llama"}',
            "model.safetensors.index.json": json.dumps(
                {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
            ),
        },
        "model-00001-of-00002.safetensors",
    ),
    "pickled weights": (
        {"config.json": '{"model_type": "llama"}', "pytorch_model.bin": b"x"},
        "safetensors",
    ),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_bad_folder_over_the_socket(service: Service, tmp_path: Path, case: str) -> None:
    files, named = FOLDERS[case]
    for name, content in files.items():
        data = content.encode() if isinstance(content, str) else content
        (tmp_path / name).write_bytes(data)
    before = service.status()
    asked = service.mlxctl("load", str(tmp_path), "--name", "bad", check=False)
    assert asked.returncode == 5, asked.stderr
    assert named in asked.stderr
    after = service.status()
    assert (after.models, after.seq) == (before.models, before.seq)
