"""What outlives a worker: a spare that the next load takes, and prompts kept on disk."""

from pathlib import Path
from typing import Any

import openai
import pytest

from tests.e2e.service import Service, config_toml, eventually, running_service, smollm

pytestmark = pytest.mark.e2e

RULES = " ".join(f"Rule {n}: be brief, be kind, and say what you know." for n in range(1, 17))


def ask(service: Service, model: str, messages: list[dict[str, str]]) -> Any:
    with openai.OpenAI(
        base_url=f"{service.url}/v1", api_key="unused", max_retries=0, timeout=300
    ) as sdk:
        return sdk.chat.completions.create(
            model=model,
            messages=messages,  # type: ignore[arg-type]
            temperature=0,
            max_tokens=12,
        )


def test_a_conversation_goes_on_after_its_model_was_unloaded(
    service: Service, text_model: str
) -> None:
    """The answer is the one of a service that has seen nothing of the conversation."""
    config = config_toml(smollm()).replace(
        "spare = false", 'spare = true\nprefix_disk_bytes = "1G"'
    )
    talk = [{"role": "system", "content": RULES}, {"role": "user", "content": "Who are you?"}]
    with running_service(config) as kept:
        first = ask(kept, text_model, talk)
        prefix = kept.home / "cache" / "prefix"
        tokens = first.usage.prompt_tokens
        assert tokens > 256, "a whole block"
        eventually(lambda: _held(prefix), lambda held: held >= tokens)
        worker = kept.status().models[0].pid
        kept.mlxctl("unload", text_model)
        assert kept.status().models == ()
        talk += [{"role": "assistant", "content": first.choices[0].message.content}]
        talk += [{"role": "user", "content": "What is the first rule?"}]
        second = ask(kept, text_model, talk)
        assert second.usage.prompt_tokens_details.cached_tokens >= tokens - 1
        assert kept.status().models[0].pid != worker
        spawned = [e for e in kept.events() if e["type"] == "worker.spawned"]
        assert len(spawned) == 2
        logs = (kept.home / "logs").glob("worker-w*.log")
        assert all("spare.waiting" in log.read_text("utf-8") for log in logs), "both were spares"
    expected = ask(service, text_model, talk)
    assert second.choices[0].message.content == expected.choices[0].message.content


def _held(prefix: Path) -> int:
    """Tokens that the files hold from the prompt's beginning on."""
    return max((int(f.name.split("-")[1]) for f in prefix.glob("*/*-*-*-*.safetensors")), default=0)
