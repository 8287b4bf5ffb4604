"""The `llm` command's library: a model of extra-openai-models.yaml, an object, streamed text.

It cannot be told that a tool has to be called; the object comes by a schema instead.
"""

import json
import os
import tempfile
from pathlib import Path

from common import ANSWER_TOKENS_MAX, CALL_TOKENS_MAX, QUESTION, SCHEMA, address, say


def main() -> None:
    url, name = address()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["LLM_USER_PATH"] = folder
        entry = {
            "model_id": "local",
            "model_name": name,
            "api_base": f"{url}/v1",
            "supports_tools": True,
            "supports_schema": True,
        }
        (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps([entry]))
        import llm  # noqa: PLC0415  (it reads its folder when it is imported)

        model = llm.get_model("local")
        asked = {"key": "unused", "stream": True, "temperature": 0}
        formed = model.prompt(QUESTION, schema=SCHEMA, max_tokens=CALL_TOKENS_MAX, **asked)
        arguments = json.loads("".join(formed))
        free = model.prompt(QUESTION, max_tokens=ANSWER_TOKENS_MAX, **asked)
        say("llm", [("get_weather", arguments)], [piece for piece in free if piece])


if __name__ == "__main__":
    main()
