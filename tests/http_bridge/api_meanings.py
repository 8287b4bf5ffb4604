"""What each field of each API means here, and why the others are refused.

``generate_api_fields_doc`` writes these, beside what the Structs say, into a page of docs.
"""

from typing import Final

COMMON: Final[dict[str, str]] = {
    "model": "looked up by name, never a path; an alias answers with the model that served",
    "stream": "events instead of one object, one a decode step",
    "temperature": "0 takes the likeliest token; absent: the model's own default",
    "top_p": "as documented; absent: the model's own default",
    "top_k": "the k likeliest tokens only; 0 is all",
    "min_p": "extension: tokens of at least this share of the likeliest one's probability",
    "seed": "the same request gives the same text; with n, choice i is drawn with seed + i",
    "repetition_penalty": "extension: above 1 makes tokens that were there less likely",
    "presence_penalty": "as documented",
    "frequency_penalty": "as documented",
    "logit_bias": "by token id",
    "stop": "none of them is ever part of the answer",
    "n": "so many choices under one lease; the prompt counts once in usage",
    "max_tokens": "absent: up to the end of the context",
    "max_completion_tokens": "another name of max_tokens; if both are given they are equal",
    "user": "accepted; neither used nor recorded",
    "safety_identifier": "accepted; neither used nor recorded",
    "prompt_cache_key": "accepted; prefixes are reused without it",
    "service_tier": "flex and priority are other words for priority low and high",
    "store": "only false: nothing is ever stored",
    "tools": "functions; a model whose chat template knows no tools is refused",
    "tool_choice": "auto and none always; the others need the capability structured",
    "parallel_tool_calls": "false needs the capability structured",
    "chat_template_kwargs": "extension: variables of the model's chat template",
    "priority": "extension: before (above 0) or after others that wait; low is -5, high is 5",
    "keep_alive": 'extension: idle time after which the model may be unloaded, "5m" or seconds',
    "ttl": "extension: the same in seconds",
}

MEANINGS: Final[dict[str, dict[str, str]]] = {
    "ChatRequest": {
        "messages": "system, developer (a system message), user, assistant, tool; content is "
        "text or parts, pictures are data: URLs in a user's message",
        "stream_options": "include_usage: a last chunk with the engine's counts",
        "response_format": "text always; json_object, json_schema and, as extensions, regex and "
        "grammar need the capability structured",
        "logprobs": "of the visible text; needs the capability logprobs",
        "top_logprobs": "only with logprobs: true",
        "reasoning_effort": "none sets enable_thinking to false for the chat template, the others "
        "set reasoning_effort; all but none and medium need the capability reasoning_effort",
        "metadata": "accepted; neither used nor recorded",
        "modalities": "only text",
    },
    "CompletionRequest": {
        "prompt": "as it is, with no chat template: one text, or one list of token ids",
        "max_tokens": "absent: 16, as OpenAI documents",
        "stream_options": "include_usage: a last chunk with the engine's counts",
        "logprobs": "in this endpoint's older form; needs the capability logprobs",
        "echo": "only false",
        "best_of": "only as many as n",
        "suffix": "only empty",
    },
    "ResponsesRequest": {
        "input": "a text, or items: message, function_call, function_call_output, reasoning; "
        "pictures are data: URLs in a user's message",
        "instructions": "a system message before the input",
        "max_output_tokens": "absent: up to the end of the context; cut answers are incomplete",
        "top_logprobs": 'only with include: ["message.output_text.logprobs"]',
        "text": "format: text always; json_object, json_schema and, as extensions, regex and "
        "grammar need the capability structured",
        "reasoning": "effort: none sets enable_thinking to false for the chat template, the others "
        "set reasoning_effort; all but none and medium need the capability reasoning_effort",
        "include": "log probabilities only; needs the capability logprobs",
        "metadata": "repeated in the answer; neither used nor recorded",
        "truncation": "only disabled: what does not fit is refused",
        "background": "only false",
        "previous_response_id": "always refused: nothing is kept between requests, send the whole "
        "conversation",
        "conversation": "always refused, likewise",
    },
    "MessagesRequest": {
        "messages": "text, image (base64), tool_use, tool_result (an error gets the words "
        '"Error: " before its text, pictures follow as the user\'s), thinking; the last one is '
        "the user's",
        "system": "text or text blocks",
        "max_tokens": "required, as Anthropic documents",
        "stop_sequences": "none of them is ever part of the answer; stop_sequence says which it "
        "was",
        "tools": "custom tools; a model whose chat template knows no tools is refused",
        "tool_choice": "auto and none always; any, tool and disable_parallel_tool_use need the "
        "capability structured",
        "thinking": "disabled sets enable_thinking to false for the chat template; adaptive and "
        "enabled need the capability thinking, budget_tokens thinking_budget; absent: the model's "
        "own way",
        "output_config": "format needs the capability structured; effort, but for medium, "
        "reasoning_effort",
        "cache_control": "accepted; prefixes are reused without it",
        "service_tier": "accepted; there is one tier",
        "metadata": "user_id: accepted; neither used nor recorded",
    },
    "EmbeddingsRequest": {
        "input": "a text, token ids, or up to 2048 of them; none of them empty",
        "encoding_format": "float (the default) or base64 of 32-bit floats, little-endian",
        "dimensions": "so many leading numbers of each vector, brought back to length 1",
    },
    "SpeechRequest": {
        "input": "what is said",
        "voice": "one of the model's voices, by name",
        "instructions": "how it is said; refused by models that do not take any",
        "response_format": "absent: mp3, as OpenAI documents; aac is refused",
        "speed": "2 takes half as long",
        "stream_format": "audio (the default) is the sound itself, as it is made; sse are events",
    },
    "TranscriptionForm": {
        "file": "the sound, in a format that the worker can decode",
        "language": "ISO 639-1; absent: found out",
        "prompt": "text that is taken to have been said before",
        "response_format": "json (the default), text, srt, vtt or verbose_json",
        "temperature": "0 (the default) is greedy",
        "timestamp_granularities": "only with verbose_json; absent: segments",
        "stream": "an event a segment; only for json and text",
    },
}
MEANINGS["CountRequest"] = MEANINGS["MessagesRequest"]

_CACHE: Final = "prefixes are reused without it"
_SERVER: Final = "is about tools that run on the server; none do"

NESTED_REFUSED: Final[dict[str, dict[str, str]]] = {
    "TextPart": {"prompt_cache_breakpoint": _CACHE},
    "ImagePart": {"prompt_cache_breakpoint": _CACHE},
    "InputText": {"prompt_cache_breakpoint": _CACHE},
    "InputImage": {
        "file_id": "no files are kept here; send a data: URL",
        "prompt_cache_breakpoint": _CACHE,
    },
    "MessageItem": {"phase": "models here know no phases"},
    "FunctionCallItem": {
        "async": "every call is answered by the caller",
        "caller": _SERVER,
        "namespace": "functions have plain names",
    },
    "FunctionTool": {
        "allowed_callers": _SERVER,
        "async": "every call is answered by the caller",
        "defer_loading": _SERVER,
        "output_schema": "what a function gives back is not checked",
    },
    "ImageBlock": {"transformations": "pictures are seen at the model's own resolution"},
    "ToolUseBlock": {"caller": _SERVER, "toolset_name": _SERVER},
    "ToolResultBlock": {"toolset_name": _SERVER},
    "CustomTool": {
        "allowed_callers": _SERVER,
        "defer_loading": _SERVER,
        "input_examples": "chat templates do not show any; put them into the description",
    },
    "ThinkingOn": {"display": "thinking always comes whole"},
    "ThinkingAdaptive": {"display": "thinking always comes whole"},
}
"""Of the shapes inside of requests, by the name of our Struct."""

_FILE: Final = "send its text, or pictures of its pages"
_REFUSAL: Final = "models here refuse in plain text; send it as text"
_SAID_ALOUD: Final = "models here read; send its text, see /v1/audio/transcriptions"

KINDS_REFUSED: Final[dict[str, dict[str, str]]] = {
    "chat: a part": {"file": _FILE, "input_audio": _SAID_ALOUD, "refusal": _REFUSAL},
    "responses: a part": {"input_file": _FILE, "refusal": _REFUSAL},
    "responses: a part of `function_call_output`": {
        "input_file": _FILE,
        "input_image": "send it in a user's message after the output",
    },
    "messages: a block": {
        "bash_code_execution_tool_result": _SERVER,
        "code_execution_tool_result": _SERVER,
        "container_upload": _SERVER,
        "document": _FILE,
        "redacted_thinking": "is only readable where it was made; leave it out",
        "search_result": "send its text",
        "server_tool_use": _SERVER,
        "text_editor_code_execution_tool_result": _SERVER,
        "tool_search_tool_result": _SERVER,
        "web_fetch_tool_result": _SERVER,
        "web_search_tool_result": _SERVER,
    },
    "messages: a block of `tool_result`": {
        "browser_state": _SERVER,
        "document": _FILE,
        "search_result": "send its text",
        "tool_reference": _SERVER,
    },
}
"""Kinds of parts that the protocols know, by where they stand."""

_CLOUD: Final = "is about a service that this is not"
_DEPRECATED: Final = "was replaced by tools and tool_choice"

REFUSED: Final[dict[str, dict[str, str]]] = {
    "ChatRequest": {
        "audio": "models here answer in text; see /v1/audio/speech",
        "function_call": _DEPRECATED,
        "functions": _DEPRECATED,
        "moderation": _CLOUD,
        "prediction": "nothing is predicted",
        "prompt_cache_options": "prefixes are reused without it",
        "prompt_cache_retention": "prefixes are reused without it",
        "verbosity": "no model here has it; say it in a system message",
        "web_search_options": "nothing here goes to the web",
    },
    "CompletionRequest": {},
    "ResponsesRequest": {
        "access_programs": _CLOUD,
        "background_options": "nothing runs on without its caller",
        "context_management": "what does not fit is refused",
        "image": _CLOUD,
        "max_tool_calls": "is about tools that run on the server; none do",
        "moderation": _CLOUD,
        "prompt": "no prompts are kept here",
        "prompt_cache_options": "prefixes are reused without it",
        "prompt_cache_retention": "prefixes are reused without it",
        "stream_options": "nothing is obfuscated",
    },
    "MessagesRequest": {
        "container": "no code is run here",
        "diagnostics": _CLOUD,
        "inference_geo": _CLOUD,
        "speed": _CLOUD,
        "user_profile_id": _CLOUD,
        "workspace_id": _CLOUD,
    },
    "CountRequest": {
        "speed": _CLOUD,
        "user_profile_id": _CLOUD,
        "workspace_id": _CLOUD,
    },
    "EmbeddingsRequest": {},
    "SpeechRequest": {},
    "TranscriptionForm": {
        "chunking_strategy": "the whole sound is heard at once",
        "include": "log probabilities are not given",
        "keywords": "put them into prompt",
        "known_speaker_names": "speakers are not told apart",
        "known_speaker_references": "speakers are not told apart",
        "languages": "send one language",
    },
}
