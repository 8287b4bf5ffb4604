"""instructor: an answer as an object, streamed as it grows, by a tool that it names."""

from typing import Literal

import instructor
import openai
from common import ANSWER_TOKENS_MAX, CALL_TOKENS_MAX, QUESTION, address, say
from pydantic import BaseModel, ConfigDict


class Weather(BaseModel):
    """The weather in a city."""

    model_config = ConfigDict(extra="forbid")

    city: Literal["Tokyo", "Paris", "Oslo"]


def main() -> None:
    url, model = address()
    sdk = openai.OpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0)
    client = instructor.from_openai(sdk, mode=instructor.Mode.TOOLS)
    talk = [{"role": "user", "content": QUESTION}]
    asked = {"model": model, "messages": talk, "temperature": 0}
    single = {"max_tokens": CALL_TOKENS_MAX, "parallel_tool_calls": False}
    place = client.create(response_model=Weather, **single, **asked)
    grown = list(client.create_partial(response_model=Weather, **single, **asked))
    assert grown[-1].city == place.city
    stream = sdk.chat.completions.create(**asked, max_tokens=ANSWER_TOKENS_MAX, stream=True)
    pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    say("instructor", [("get_weather", place.model_dump())], [piece for piece in pieces if piece])


if __name__ == "__main__":
    main()
