"""LangChain's ChatOpenAI: a bound tool, streamed and added up, then the streamed answer."""

from common import ANSWER_TOKENS_MAX, CALL_TOKENS_MAX, QUESTION, RESULT, TOOL, address, say
from langchain_core.messages import AIMessageChunk, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI


def main() -> None:
    url, model = address()
    options = {"model": model, "base_url": f"{url}/v1", "api_key": "unused", "temperature": 0}
    asking = ChatOpenAI(**options, max_tokens=CALL_TOKENS_MAX, max_retries=0)
    bound = asking.bind_tools([TOOL], tool_choice="required", parallel_tool_calls=False)
    said = AIMessageChunk(content="")
    for chunk in bound.stream([HumanMessage(QUESTION)]):
        said += chunk
    results = [ToolMessage(RESULT, tool_call_id=call["id"]) for call in said.tool_calls]
    answering = ChatOpenAI(**options, max_tokens=ANSWER_TOKENS_MAX, max_retries=0)
    answer = [c.text for c in answering.stream([HumanMessage(QUESTION), said, *results])]
    calls = [(call["name"], call["args"]) for call in said.tool_calls]
    say("langchain-openai", calls, [piece for piece in answer if piece])


if __name__ == "__main__":
    main()
