"""The demonstration: the real service, its bundled vision model, a real picture.

    make demo

Starts the daemon and the HTTP bridge on a home of their own, loads `mlxd/glimpse`, asks
it about a picture through the OpenAI-style API, shows the pool and the events that
explain it, and stops everything it started.
"""

import base64
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
BIN = Path(sys.executable).parent
PICTURE = ROOT / "tests" / "fixtures" / "images" / "red_square.png"
MODEL = "mlxd/glimpse"
QUESTION = "Describe this image in one sentence. What shape do you see and what color is it?"
STOP_TIMEOUT_S = 60


def main() -> int:
    """Run it; 0 if the model saw what is there."""
    with tempfile.TemporaryDirectory(prefix="mlxd-") as home:
        environ = {**os.environ, "MLXD_HOME": home}
        with (
            _running("mlxd", environ) as daemon,
            _running("mlx-bridge", environ, "--port", "0") as bridge,
        ):
            _first_line(daemon)  # it listens now
            port = json.loads(_first_line(bridge))["port"]
            _say(f"mlxctl load {MODEL}")
            _mlxctl(environ, "load", MODEL)
            _say(f"asking http://127.0.0.1:{port}/v1/chat/completions about {PICTURE}")
            answer = _ask(port)
            print(f"  {QUESTION}\n  → {answer}")
            _say("mlxctl status")
            _mlxctl(environ, "status")
            _say("mlxctl unload, then mlxctl events: why each thing happened")
            _mlxctl(environ, "unload", MODEL)
            _mlxctl(environ, "events")
    _say("everything that was started has been stopped")
    seen = answer.lower()
    return 0 if "red" in seen and "square" in seen else 1


@contextmanager
def _running(
    command: str, environ: dict[str, str], *arguments: str
) -> Iterator[subprocess.Popen[bytes]]:
    _say(f"starting {command}")
    log = Path(environ["MLXD_HOME"]) / f"{command}.log"
    with (
        log.open("wb") as errors,
        subprocess.Popen(
            [BIN / command, *arguments], env=environ, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        try:
            yield process
        except BaseException:
            sys.stderr.write(log.read_text(errors="replace"))
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(STOP_TIMEOUT_S)


def _first_line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


def _mlxctl(environ: dict[str, str], *arguments: str) -> None:
    subprocess.run([BIN / "mlxctl", *arguments], env=environ, check=True)


def _ask(port: int) -> str:
    picture = base64.b64encode(PICTURE.read_bytes()).decode()
    parts: list[dict[str, Any]] = [
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}},
        {"type": "text", "text": QUESTION},
    ]
    body = {
        "model": MODEL,
        "messages": [{"role": "user", "content": parts}],
        "temperature": 0,
        "max_tokens": 60,
    }
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=120) as reply:
        answer: str = json.load(reply)["choices"][0]["message"]["content"]
    return answer


def _say(what: str) -> None:
    print(f"\n▸ {what}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
