"""Handlers of the endpoints that generate text: a body, a plan, a reply."""

from collections.abc import Callable

import msgspec
from aiohttp import web

from daemon.wire import data as d
from daemon.wire.errors import Code, MlxdError
from http_bridge.anthropic_messages import read_count, read_messages
from http_bridge.anthropic_reply import MessagesReply
from http_bridge.app import Handler
from http_bridge.bodies import Bodies
from http_bridge.openai_chat import read_chat
from http_bridge.openai_chat_reply import ChatReply
from http_bridge.openai_completions import CompletionReply, read_completion
from http_bridge.openai_responses import read_responses
from http_bridge.openai_responses_reply import ResponsesReply
from http_bridge.serving import Serving


class Ids(msgspec.Struct, frozen=True, kw_only=True):
    """Where answers get their names and times from.

    Attributes:
        now_s: Seconds since 1970, for ``created``.
        new_id: A random text.
    """

    now_s: Callable[[], int]
    new_id: Callable[[], str]


class TextEndpoints:
    """The handlers, by the names of their routes."""

    def __init__(self, serving: Serving, bodies: Bodies, ids: Ids) -> None:
        self._serving = serving
        self._bodies = bodies
        self._ids = ids

    def handlers(self) -> dict[str, Handler]:
        return {
            "chat": self._chat,
            "completions": self._completions,
            "responses": self._responses,
            "messages": self._messages,
            "count_tokens": self._count_tokens,
        }

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        request_id = f"chatcmpl-{self._ids.new_id()}"
        plan, include_usage = read_chat(await self._bodies.read(request), request_id)
        reply = ChatReply(
            request_id=request_id,
            created_s=self._ids.now_s(),
            include_usage=include_usage,
            choices=plan.choices,
            logprobs=plan.generate.logprobs is not None,
        )
        return await self._serving.answer(request, plan, reply)

    async def _completions(self, request: web.Request) -> web.StreamResponse:
        request_id = f"cmpl-{self._ids.new_id()}"
        plan, include_usage = read_completion(await self._bodies.read(request), request_id)
        reply = CompletionReply(
            request_id=request_id,
            created_s=self._ids.now_s(),
            include_usage=include_usage,
            choices=plan.choices,
            logprobs=plan.generate.logprobs is not None,
        )
        return await self._serving.answer(request, plan, reply)

    async def _responses(self, request: web.Request) -> web.StreamResponse:
        new_id = self._ids.new_id()
        plan, asked = read_responses(await self._bodies.read(request), f"resp_{new_id}")
        reply = ResponsesReply(request_id=new_id, created_s=self._ids.now_s(), request=asked)
        return await self._serving.answer(request, plan, reply)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        request_id = f"msg_{self._ids.new_id()}"
        plan = read_messages(await self._bodies.read(request), request_id)
        return await self._serving.answer(request, plan, MessagesReply(request_id=request_id))

    async def _count_tokens(self, request: web.Request) -> web.StreamResponse:
        call = read_count(await self._bodies.read(request), f"count_{self._ids.new_id()}")
        async with self._serving.exchange(request, call) as exchange:
            async for answer in exchange:
                if isinstance(answer, d.TokenCount):
                    body = msgspec.json.encode({"input_tokens": answer.prompt_tokens})
                    return web.Response(body=body, content_type="application/json")
        raise MlxdError(Code.INTERNAL, "the worker ended without the count; ask again")
