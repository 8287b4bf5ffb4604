import os
from pathlib import Path
from typing import Any

import pytest

from daemon.models.folder import fingerprint
from daemon.models.inspect import inspect_folder
from daemon.wire.errors import Code, MlxdError
from tests.daemon.models.folders import LLAMA, llama_tensors, safetensors, write_folder

VISION_TENSORS = llama_tensors() | {"vision_tower.blocks.0.k_proj.weight": ("BF16", (64, 64))}
GEMMA3: dict[str, Any] = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": {"model_type": "gemma3_text", "num_hidden_layers": 2, "hidden_size": 64},
}
QWEN3_VL: dict[str, Any] = {
    "model_type": "qwen3_vl",
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "vision_config": {"depth": 1},
    "text_config": {"max_position_embeddings": 2048},
}
PROCESSOR = {"preprocessor_config.json": {"size": 1}}


def refused(folder: Path, code: Code = Code.INCOMPATIBLE, **options: bool) -> MlxdError:
    with pytest.raises(MlxdError) as caught:
        inspect_folder(folder, **options)
    assert caught.value.code is code
    return caught.value


def test_a_text_model(tmp_path: Path) -> None:
    found = inspect_folder(write_folder(tmp_path))
    assert (found.kind, found.capabilities, found.architecture) == (
        "text",
        ("text",),
        "llama",
    )
    # 10·64 embeddings, and for 2 layers k and v of 32·64, 2 bytes each
    assert found.weights_bytes == 2 * (10 * 64 + 2 * 2 * 32 * 64)
    assert found.kv_token_bytes == 2 * 2 * 32 * 2
    assert found.context_tokens == 1024
    assert found.quantization is None
    assert found.path == str(tmp_path.resolve())


def test_quantized_weights_count_as_packed_and_cache_by_the_scales(tmp_path: Path) -> None:
    tensors = {
        "model.embed_tokens.weight": ("U32", (10, 8)),
        "model.embed_tokens.scales": ("F32", (10, 2)),
        "model.layers.0.self_attn.k_proj.weight": ("U32", (32, 8)),
        "model.layers.0.self_attn.v_proj.weight": ("U32", (16, 8)),
    }
    config = LLAMA | {"quantization": {"bits": 4, "group_size": 32}}
    found = inspect_folder(write_folder(tmp_path, config, tensors))
    assert found.weights_bytes == 4 * (80 + 20 + 256 + 128)
    assert found.kv_token_bytes == (32 + 16) * 4
    assert found.quantization is not None
    assert (found.quantization.bits, found.quantization.group_size) == (4, 32)
    assert found.precision == "4-bit"


def test_how_weights_are_stored_is_said_as_people_say_it(tmp_path: Path) -> None:
    tensors = {"norm.weight": ("F32", (10,)), "model.embed_tokens.weight": ("BF16", (10, 8))}
    plain = inspect_folder(write_folder(tmp_path / "plain", LLAMA, tensors))
    config = LLAMA | {"quantization": {"bits": 4, "group_size": 32, "mode": "mxfp4"}}
    packed = inspect_folder(write_folder(tmp_path / "packed", config, tensors))
    assert (plain.precision, packed.precision) == ("bf16", "mxfp4")


def test_names_decide_nothing(tmp_path: Path) -> None:
    """LESSONS: gemma-3-1b taken for vision, "dac" and "tts" for audio, "8x7B" for 4 GB."""
    for name in ("gemma-3-4b-vision", "tts-dac-whisper", "Mixtral-8x7B-embedding"):
        found = inspect_folder(write_folder(tmp_path / name))
        assert (found.kind, found.weights_bytes) == ("text", 17_664)


def test_gemma3_text_only_is_text(tmp_path: Path) -> None:
    config = {**LLAMA, "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}
    assert inspect_folder(write_folder(tmp_path, config)).kind == "text"


def test_a_vision_model(tmp_path: Path) -> None:
    found = inspect_folder(write_folder(tmp_path, QWEN3_VL, VISION_TENSORS, PROCESSOR))
    assert (found.kind, found.capabilities) == ("vision", ("text", "vision"))
    assert found.context_tokens == 2048
    assert found.kv_token_bytes == 2 * 2 * 32 * 2  # the vision tower's k_proj caches nothing


def test_a_vision_type_whose_weights_lost_their_vision_is_text(tmp_path: Path) -> None:
    assert inspect_folder(write_folder(tmp_path, QWEN3_VL, files=PROCESSOR)).kind == "text"


def test_gemma3_without_vision_config_names_the_cause(tmp_path: Path) -> None:
    error = refused(write_folder(tmp_path, GEMMA3, VISION_TENSORS, PROCESSOR))
    assert error.fault.field == "config.json"
    assert "no vision_config" in error.fault.message
    assert "needs its 6 fields" in error.fault.message
    assert "copy vision_config from the original" in error.fault.message
    with_config = GEMMA3 | {"vision_config": {"hidden_size": 4}}
    assert inspect_folder(write_folder(tmp_path, with_config, VISION_TENSORS)).kind == "vision"


def test_qwen3_vl_without_processor_files_names_the_cause(tmp_path: Path) -> None:
    error = refused(write_folder(tmp_path, QWEN3_VL, VISION_TENSORS))
    assert error.fault.field == "preprocessor_config.json"
    assert "no image processor" in error.fault.message


@pytest.mark.parametrize(
    ("config", "kind", "architecture"),
    [
        ({"model_type": "bert", "max_position_embeddings": 512}, "embeddings", "bert"),
        ({"model_type": "whisper"}, "transcription", "whisper"),
        ({"model_type": "kokoro"}, "speech", "kokoro"),
        ({"istftnet": {}, "plbert": {}}, "speech", "kokoro"),
        ({"model_type": "qwen3_tts"}, "speech", "qwen3_tts"),
        ({"model_type": "qwen3"}, "text", "qwen3"),
        ({"target": "nemo.collections.asr.models.X"}, "transcription", "parakeet"),
        ({"model_type": "nobody_knows_this"}, "text", "nobody_knows_this"),
    ],
)
def test_kinds(tmp_path: Path, config: dict[str, Any], kind: str, architecture: str) -> None:
    found = inspect_folder(write_folder(tmp_path, config))
    assert (found.kind, found.architecture) == (kind, architecture)


def test_a_decoder_tuned_to_embed_is_told_by_its_files(tmp_path: Path) -> None:
    files = {"1_Pooling/config.json": {}, "sentence_bert_config.json": {"max_seq_length": 256}}
    found = inspect_folder(write_folder(tmp_path, {**LLAMA, "model_type": "qwen3"}, files=files))
    assert (found.kind, found.capabilities) == ("embeddings", ("embeddings",))
    assert (found.context_tokens, found.kv_token_bytes) == (256, 0)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "encodec"}, "encodec"),
        (LLAMA | {"architectures": ["LlamaForSequenceClassification"]}, "classifier"),
    ],
)
def test_tasks_without_an_engine(tmp_path: Path, config: dict[str, Any], named: str) -> None:
    assert named in refused(write_folder(tmp_path, config)).fault.message


def test_capabilities_come_from_the_chat_template(tmp_path: Path) -> None:
    template = "{% if tools %}<tool_call>{{ tool_call.name }}{% endif %}<think>"
    folder = write_folder(tmp_path, files={"chat_template.jinja": template})
    assert inspect_folder(folder).capabilities == (
        *("text", "chat", "tools", "thinking", "thinking_budget"),
        "count_tokens",
    )
    (folder / "chat_template.jinja").unlink()
    listed = {"chat_template": [{"name": "default", "template": "<|tool_call_start|>"}]}
    write_folder(tmp_path, files={"tokenizer_config.json": listed})
    assert inspect_folder(folder).capabilities == (
        *("text", "chat", "tools"),
        "count_tokens",
    )


def test_a_tokenizer_that_can_be_read_allows_more(tmp_path: Path) -> None:
    folder = write_folder(
        tmp_path, files={"tokenizer.json": {}, "chat_template.jinja": "{{ reasoning_effort }}"}
    )
    found = inspect_folder(folder).capabilities
    assert {"logprobs", "structured", "reasoning_effort"} <= set(found)
    assert "thinking_budget" not in found


def test_no_such_folder(tmp_path: Path) -> None:
    assert str(tmp_path / "x") in refused(tmp_path / "x", Code.NOT_FOUND).fault.message
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", Code.NOT_FOUND)


def test_no_config(tmp_path: Path) -> None:
    assert refused(tmp_path).fault.field == "config.json"
    (tmp_path / "m.gguf").write_bytes(b"GGUF")
    error = refused(tmp_path)
    assert (error.fault.field, "GGUF" in error.fault.message) == ("m.gguf", True)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{\n"model_type": "llama",\n}', "line 3"),
        ("[]", "not a JSON object"),
        ("", "line 1"),
        ("[" * 100_000, "not JSON"),
        ('{"model_type": ' + "1" * 5000 + "}", "not JSON"),
        ("{}", "no model_type"),
        ('{"model_type": 7}', "no model_type"),
    ],
)
def test_bad_config(tmp_path: Path, text: str, reason: str) -> None:
    error = refused(write_folder(tmp_path, files={"config.json": text}))
    assert error.fault.field == "config.json"
    assert reason in error.fault.message


def test_config_may_hold_infinity(tmp_path: Path) -> None:
    text = '{"model_type": "mamba2", "time_step_limit": [0.0, Infinity]}'
    assert inspect_folder(write_folder(tmp_path, files={"config.json": text})).kind == "text"


@pytest.mark.parametrize("value", ["x", -1, 0, True, None, 1.5, [], {}, 1 << 80])
def test_wrong_values_in_config_do_no_harm(tmp_path: Path, value: object) -> None:
    config = dict.fromkeys(
        [*LLAMA, "text_config", "quantization", "layer_types", "sliding_window", "auto_map",
         "vision_config", "head_dim", "attn_config", "num_kv_shared_layers"],
        value,
    ) | {"model_type": "llama"}  # fmt: skip
    found = inspect_folder(write_folder(tmp_path, config))
    assert found.context_tokens == 8192


def test_missing_shard_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors",
                            "b": "model-00002-of-00002.safetensors"}}  # fmt: skip
    folder = write_folder(tmp_path, files={"model.safetensors.index.json": index})
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    error = refused(folder)
    assert error.fault.field == "model-00002-of-00002.safetensors"
    (folder / "model.safetensors.index.json").unlink()
    assert refused(folder).fault.field == "model-00002-of-00002.safetensors"
    (folder / "model-00002-of-00002.safetensors").symlink_to(folder / "gone")
    assert refused(folder).fault.field == "model-00002-of-00002.safetensors"


def test_an_index_of_other_files_is_named(tmp_path: Path) -> None:
    """Shards of one download beside the index of another: the libraries name a parameter."""
    held = dict.fromkeys(llama_tensors(), "model.safetensors")
    name = "model.safetensors.index.json"
    folder = write_folder(tmp_path, files={name: {"weight_map": held}})
    assert inspect_folder(folder).kind == "text"
    more = held | {"model.norm.weight": "model.safetensors", "lm_head.weight": "model.safetensors"}
    error = refused(write_folder(tmp_path, files={name: {"weight_map": more}}))
    assert error.fault.field == name
    assert (
        f'{name} in {folder} names "lm_head.weight" and 1 more tensors, but model.safetensors '
        "does not hold it; correct it, or download the model again"
    ) == error.fault.message


def test_shards_are_summed_once_a_tensor(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "model-extra.safetensors").write_bytes(safetensors({"more": ("F32", (10,))}))
    (folder / "model-copy.safetensors").write_bytes(safetensors({"more": ("F32", (10,))}))
    (folder / "other.safetensors").write_bytes(safetensors({"unread": ("F32", (99,))}))
    assert inspect_folder(folder).weights_bytes == 17_664 + 40


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("pytorch_model.bin", "pickle"),
        ("model.pt", "pickle"),
        ("m.gguf", "GGUF"),
        ("weights.npz", "old weight format"),
        ("weights.safetensors", "rename it"),
    ],
)
def test_weights_that_are_not_loaded(tmp_path: Path, name: str, reason: str) -> None:
    folder = write_folder(tmp_path, files={name: b"x"})
    (folder / "model.safetensors").unlink()
    error = refused(folder)
    assert (error.fault.field, reason in error.fault.message) == (name, True)


def test_no_weights_at_all(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    assert refused(folder).fault.field == "model.safetensors"
    write_folder(tmp_path, tensors={})
    assert "holds no weights" in refused(folder).fault.message


def test_code_of_the_folder_is_refused_unless_allowed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, LLAMA | {"model_file": "own.py"})
    error = refused(folder)
    assert error.fault.field == "config.json"
    assert "allow_code = true" in error.fault.message
    assert inspect_folder(folder, allow_code=True).kind == "text"


def test_auto_map_is_refused_only_where_it_would_be_used(tmp_path: Path) -> None:
    auto_map = {"auto_map": {"AutoModelForCausalLM": "modeling_x.X"}}
    assert inspect_folder(write_folder(tmp_path / "a", LLAMA | auto_map)).kind == "text"
    unknown = {**LLAMA, **auto_map, "model_type": "nobody_knows_this"}
    assert refused(write_folder(tmp_path / "b", unknown)).fault.field == "config.json"
    tokenizer = {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["tok_x.T", None]}}}
    assert inspect_folder(write_folder(tmp_path / "c", files=tokenizer)).kind == "text"
    folder = write_folder(tmp_path / "c", files={"tok_x.py": "import os"})
    assert refused(folder).fault.field == "tokenizer_config.json"
    assert inspect_folder(folder, allow_code=True).kind == "text"


def test_fingerprint_changes_with_the_files(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    before = fingerprint(folder)
    assert before == inspect_folder(folder).fingerprint == fingerprint(folder)
    (folder / "README.md").write_text("")
    added = fingerprint(folder)
    (folder / "README.md").write_text("longer")
    longer = fingerprint(folder)
    os.utime(folder / "README.md", ns=(7, 7))
    assert len({before, added, longer, fingerprint(folder)}) == 4
    assert fingerprint(tmp_path / "none") == ""
