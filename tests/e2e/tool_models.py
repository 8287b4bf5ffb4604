"""Real models with a chat template that knows tools.

SmolLM2-135M and the bundled model were published without one. Weights and tokenizer are
theirs, by symbolic link; only the template is another: the one that Hermes models and
Qwen2.5 use, whose calls are JSON between ``<tool_call>`` and ``</tool_call>``.
"""

import json
from pathlib import Path
from typing import Final

from daemon.models.resolve import BUNDLED
from tests.models import model_path

SMOLLM_TOOLS: Final = "smollm2-tools"
GLIMPSE_TOOLS: Final = "glimpse-tools"

TEMPLATE: Final = """\
{%- macro body(message) -%}
{%- if message['content'] is string -%}{{- message['content'] -}}
{%- else -%}{%- for part in message['content'] or [] -%}
{%- if part['type'] == 'image' -%}{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- else -%}{{- part['text'] -}}{%- endif -%}{%- endfor -%}{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
{{- '<|im_start|>system\\n' -}}
{%- if messages[0]['role'] == 'system' -%}{{- body(messages[0]) + '\\n\\n' -}}{%- endif -%}
{{- 'You may call functions. Their signatures:\\n<tools>' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\\n</tools>\\nFor each call, write a JSON object with name and arguments:\\n' -}}
{{- '<tool_call>\\n{"name": <name>, "arguments": <arguments>}\\n</tool_call><|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if not (tools and loop.first and message['role'] == 'system') -%}
{%- if message['role'] == 'tool' -%}
{{- '<|im_start|>user\\n<tool_response>\\n' + body(message) + '\\n</tool_response>' -}}
{%- else -%}
{{- '<|im_start|>' + message['role'] + '\\n' + body(message) -}}
{%- for call in message['tool_calls'] or [] -%}{%- set tool_call = call['function'] -%}
{{- '\\n<tool_call>\\n{"name": "' + tool_call.name + '", "arguments": ' -}}
{{- (tool_call.arguments | tojson) + '}\\n</tool_call>' -}}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def tool_models(folder: Path) -> dict[str, Path]:
    """Both of them, made in ``folder``."""
    return {
        SMOLLM_TOOLS: teach_tools(model_path("smollm2-135m-f32"), folder / SMOLLM_TOOLS),
        GLIMPSE_TOOLS: teach_tools(BUNDLED["mlxd/glimpse"], folder / GLIMPSE_TOOLS),
    }


def teach_tools(model: Path, folder: Path) -> Path:
    """``model`` with the template above, in the new ``folder``."""
    folder.mkdir(parents=True)
    for file in model.iterdir():
        if file.name not in {"tokenizer_config.json", "chat_template.jinja"}:
            (folder / file.name).symlink_to(file)
    config = json.loads((model / "tokenizer_config.json").read_text("utf-8"))
    config["chat_template"] = TEMPLATE
    (folder / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    return folder
