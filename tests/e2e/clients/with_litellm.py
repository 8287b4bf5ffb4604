"""litellm: its own chunks, put together by its own builder."""

import json

import litellm
from common import ANSWER_TOKENS_MAX, CALL_TOKENS_MAX, NAME, QUESTION, RESULT, TOOL, address, say


def main() -> None:
    url, model = address()
    options = {
        "model": f"openai/{model}",
        "api_base": f"{url}/v1",
        "api_key": "unused",
        "temperature": 0,
        "stream": True,
    }
    talk = [{"role": "user", "content": QUESTION}]
    named = {"type": "function", "function": {"name": NAME}}
    chunks = list(
        litellm.completion(
            messages=talk, tools=[TOOL], tool_choice=named, max_tokens=CALL_TOKENS_MAX, **options
        )
    )
    said = litellm.stream_chunk_builder(chunks, messages=talk).choices[0].message
    talk += [
        said.model_dump(exclude_none=True),
        *({"role": "tool", "tool_call_id": c.id, "content": RESULT} for c in said.tool_calls),
    ]
    answer = litellm.completion(messages=talk, max_tokens=ANSWER_TOKENS_MAX, **options)
    pieces = [chunk.choices[0].delta.content for chunk in answer if chunk.choices]
    calls = [(c.function.name, json.loads(c.function.arguments)) for c in said.tool_calls]
    say("litellm", calls, [piece for piece in pieces if piece])


if __name__ == "__main__":
    main()
