"""Pydantic AI: an agent that runs the tool itself, then an output that has to be of a type."""

from typing import Literal

from common import ANSWER_TOKENS_MAX, CALL_TOKENS_MAX, QUESTION, RESULT, address, say
from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider


class Place(BaseModel):
    """Where the weather is asked for."""

    city: Literal["Tokyo", "Paris", "Oslo"]


async def run() -> None:
    url, name = address()
    model = OpenAIChatModel(name, provider=OpenAIProvider(base_url=f"{url}/v1", api_key="unused"))
    settings = {"temperature": 0, "max_tokens": CALL_TOKENS_MAX}
    typed = Agent(model, output_type=Place, model_settings=settings)
    async with typed.run_stream(QUESTION) as run:
        place = await run.get_output()
    calls = [
        part
        for message in run.all_messages()
        if isinstance(message, ModelResponse)
        for part in message.parts
        if isinstance(part, ToolCallPart)
    ]
    assert calls[0].args_as_dict() == place.model_dump()
    call = calls[0]
    talk: list[ModelMessage] = [
        ModelRequest(parts=[UserPromptPart(QUESTION)]),
        ModelResponse(parts=[call]),
        ModelRequest(parts=[ToolReturnPart(call.tool_name, RESULT, call.tool_call_id)]),
    ]
    free = Agent(model, model_settings={"temperature": 0, "max_tokens": ANSWER_TOKENS_MAX})
    async with free.run_stream("Say it.", message_history=talk) as run:
        pieces = [piece async for piece in run.stream_text(delta=True, debounce_by=None)]
    say("pydantic-ai-slim", [("get_weather", place.model_dump())], pieces)


if __name__ == "__main__":
    import asyncio

    asyncio.run(run())
