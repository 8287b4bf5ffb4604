"""The library alone, in a process of its own: ``python -m benchmarks.raw_child FOLDER``.

Says one JSON line once the model is loaded, then answers one JSON line with another:
``{"prompts": [...], "tokens": n}`` is decoded by ``stream_generate`` if there is one prompt,
by ``BatchGenerator`` if there are more. ``--stand-in`` steps the stand-in engine instead.
"""

import json
import sys
import time
from collections.abc import Callable

Answer = Callable[[list[str], int], int]
"""Decodes prompts and gives the number of tokens."""


def open_model(folder: str) -> Answer:
    """mlx_lm on one model folder; loading is complete when this returns."""
    import mlx.core as mx  # noqa: PLC0415
    from mlx_lm import load, stream_generate  # noqa: PLC0415
    from mlx_lm.generate import BatchGenerator  # noqa: PLC0415

    model, tokenizer = load(folder)  # not lazy: it evaluates the weights

    def encode(prompt: str) -> list[int]:
        messages = [{"role": "user", "content": prompt}]
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True))

    def batched(prompts: list[str], tokens: int) -> int:
        generator = BatchGenerator(
            model,
            max_tokens=tokens,
            stop_tokens=[[token] for token in tokenizer.eos_token_ids],
            sampler=lambda scores: mx.argmax(scores, axis=-1),
        )
        left = set(generator.insert([encode(prompt) for prompt in prompts]))
        count = 0
        while left:
            for response in generator.next()[1]:
                count += 1
                if response.finish_reason is not None:
                    left.discard(response.uid)
        generator.close()
        return count

    def answer(prompts: list[str], tokens: int) -> int:
        if len(prompts) > 1:
            return batched(prompts, tokens)
        return sum(
            1 for _ in stream_generate(model, tokenizer, encode(prompts[0]), max_tokens=tokens)
        )

    return answer


def open_stand_in(folder: str) -> Answer:
    """The stand-in engine, stepped in a bare loop."""
    from daemon.wire.data import Begin, ChatMessage, Generate, TextPart  # noqa: PLC0415
    from tests.fakes.engine import FakeEngine  # noqa: PLC0415

    engine = FakeEngine()
    begin = Begin(
        name="stand-in",
        path=folder,
        kind="text",
        weights_bytes=0,
        kv_tokens=1 << 20,
        context_tokens=1 << 14,
        rows_max=32,
        cache_bytes_max=0,
    )
    engine.load(begin, lambda _done, _total: None)

    def answer(prompts: list[str], tokens: int) -> int:
        for number, prompt in enumerate(prompts):
            message = ChatMessage(role="user", parts=(TextPart(text=prompt),))
            request = Generate(lease="", messages=(message,), max_tokens=tokens)
            engine.submit(number, request)
        count = 0
        while engine.busy:
            for emission in engine.step():
                count += emission.usage.completion_tokens if emission.usage else 0
        return count

    return answer


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main(folder: str, *, stand_in: bool) -> None:
    began_s = time.perf_counter()
    if not stand_in:
        import mlx_lm  # noqa: F401, PLC0415
    imported_s = time.perf_counter()
    answer = (open_stand_in if stand_in else open_model)(folder)
    say(import_s=imported_s - began_s, load_s=time.perf_counter() - imported_s)
    for line in sys.stdin:
        asked = json.loads(line)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        tokens = answer(asked["prompts"], asked["tokens"])
        say(
            tokens=tokens,
            seconds=time.perf_counter() - wall_s,
            cpu_ms=(time.process_time() - cpu_s) * 1000,
        )


if __name__ == "__main__":
    main(sys.argv[1], stand_in="--stand-in" in sys.argv[2:])
