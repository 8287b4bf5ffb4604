"""LangChain's ChatAnthropic: the same conversation over the other protocol."""

from common import ANSWER_TOKENS_MAX, CALL_TOKENS_MAX, QUESTION, RESULT, TOOL, address, say
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage


def main() -> None:
    url, model = address()
    options = {"model": model, "base_url": url, "api_key": "unused", "max_retries": 0}
    asking = ChatAnthropic(**options, max_tokens=CALL_TOKENS_MAX)
    bound = asking.bind_tools([TOOL], tool_choice="any", parallel_tool_calls=False)
    said = AIMessageChunk(content="")
    for chunk in bound.stream([HumanMessage(QUESTION)]):
        said += chunk
    results = [ToolMessage(RESULT, tool_call_id=call["id"]) for call in said.tool_calls]
    answering = ChatAnthropic(**options, max_tokens=ANSWER_TOKENS_MAX)
    answer = [c.text for c in answering.stream([HumanMessage(QUESTION), said, *results])]
    calls = [(call["name"], call["args"]) for call in said.tool_calls]
    say("langchain-anthropic", calls, [piece for piece in answer if piece])


if __name__ == "__main__":
    main()
