"""Kokoro-82M as an int8 ONNX export -> folder that `mlx_audio.tts.utils.load_model` reads.

The export keeps biases and norms under the module paths of the original PyTorch model, but not
the matrices: those are found through the operation that reads them, whose own name is the module
path. What is written has the original's names, which `mlx_audio/tts/models/kokoro` translates.

Quantised operations are ONNX's MatMulInteger and ConvInteger and onnxruntime's
com.microsoft.DynamicQuantizeLSTM. Every matrix becomes float32.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import mlx.core as mx
import numpy as np

from tests.models import ModelError
from tests.models.onnx_reader import Array, Graph, Node, read_graph

VERSION: Final = 1
"""Raise it whenever the same wheels would give a different folder."""

# The original model's config.json (hexgrad/Kokoro-82M), less the vocabulary.
_CONFIG: Final[dict[str, Any]] = {
    "model_type": "kokoro",
    "istftnet": {
        "upsample_kernel_sizes": [20, 12],
        "upsample_rates": [10, 6],
        "gen_istft_hop_size": 5,
        "gen_istft_n_fft": 20,
        "resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
        "resblock_kernel_sizes": [3, 7, 11],
        "upsample_initial_channel": 512,
    },
    "dim_in": 64,
    "dropout": 0.2,
    "hidden_dim": 512,
    "max_conv_dim": 512,
    "max_dur": 50,
    "multispeaker": True,
    "n_layer": 3,
    "n_mels": 80,
    "n_token": 178,
    "style_dim": 128,
    "text_encoder_kernel_size": 5,
    "plbert": {
        "hidden_size": 768,
        "num_attention_heads": 12,
        "intermediate_size": 2048,
        "max_position_embeddings": 512,
        "num_hidden_layers": 12,
        "dropout": 0.1,
    },
    "sample_rate": 24000,
}

_STYLE_WIDTH: Final = 256

# Convolutions that the original does not weight-normalise.
_PLAIN_CONVOLUTION: Final = re.compile(r"(F0_proj|N_proj|noise_convs\.\d)$")

# ALBERT runs one layer many times; the export numbers the repeated uses of a module.
_REPEATED_ALBERT_USE: Final = re.compile(r"(query|key|value|dense|ffn|ffn_output)_\d+$")

# ONNX stacks LSTM gates as input, output, forget, cell; PyTorch as input, forget, cell, output.
_GATE_ORDER: Final = (0, 2, 3, 1)


def convert(model: bytes, vocabulary: Path, voices: Path, out: Path) -> None:
    """Write `out` as an MLX Kokoro folder.

    Args:
        model: The ONNX file's bytes.
        vocabulary: JSON with a `vocab` table, phoneme -> token id.
        voices: `.npz` with one style table [510, 1, 256] a voice, indexed by phoneme count - 1.
        out: An existing folder.

    Raises:
        ModelError: The ONNX file cannot be read or is another export of the model.
    """
    weights = {name: mx.array(value) for name, value in torch_weights(read_graph(model)).items()}
    mx.save_safetensors(str(out / "model.safetensors"), weights, metadata={"format": "pt"})
    config = _CONFIG | {"vocab": json.loads(vocabulary.read_text(encoding="utf-8"))["vocab"]}
    text = json.dumps(config, indent=1, ensure_ascii=False) + "\n"
    (out / "config.json").write_text(text, encoding="utf-8")
    (out / "voices").mkdir()
    with np.load(voices) as tables:
        for name in tables.files:
            table = mx.array(tables[name].astype(np.float32).reshape(-1, 1, _STYLE_WIDTH))
            mx.save_safetensors(str(out / "voices" / f"{name}.safetensors"), {"voice": table})


def torch_weights(graph: Graph) -> dict[str, Array]:
    """All float32 weights under the names of the original PyTorch state dict."""
    weights: dict[str, Array] = {}
    for node in graph.nodes:
        match node.op_type:
            case "Conv" | "ConvTranspose" | "ConvInteger":
                found = _convolution(node, graph.constants)
            case "MatMul" | "MatMulInteger":
                found = _linear(node, graph.constants)
            case "DynamicQuantizeLSTM":
                found = _lstm(node, graph.constants)
            case "DequantizeLinear":
                found = _embedding(node, graph.constants)
            case _:
                continue
        weights |= found
    for name, value in graph.constants.items():
        if _is_named_weight(name):
            weights.setdefault(module_path(name), value)
    if not any(name.startswith("bert.") for name in weights):
        raise ModelError("the ONNX file is not the Kokoro export that tests/models/kokoro.py knows")
    # The export dropped the pooler, whose output nothing uses; strict loading wants it there.
    width = _CONFIG["plbert"]["hidden_size"]
    weights["bert.pooler.weight"] = np.zeros((width, width))
    weights["bert.pooler.bias"] = np.zeros(width)
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}


def module_path(name: str) -> str:
    """PyTorch module path behind a node name or a constant's name.

    The export wraps text side and vocoder in modules called encoder and decoder, repeats the
    names of sequential containers, and leaves `predictor` out of the paths of nodes whose modules
    are called from outside of it.
    """
    path = name.strip("/").replace("/", ".")
    path = re.sub(r"\b(cnn\.\d)\.cnn\.\d\.(\d)", r"\1.\2", path)
    path = path.replace("asr_res.asr_res.0", "asr_res.0")
    if path.startswith("decoder.decoder."):
        return path.removeprefix("decoder.")
    if path.startswith("encoder."):
        path = path.removeprefix("encoder.")
        if not path.startswith(("bert", "predictor.", "text_encoder.")):
            path = f"predictor.{path}"
    return path


def _is_named_weight(name: str) -> bool:
    """Biases, norms and snake alphas: the constants that kept their names."""
    is_parameter = name.startswith(("encoder.", "decoder."))
    is_helper = name.endswith(("_quantized", "_scale", "_zero_point", "_shape"))
    return is_parameter and not is_helper and "stft" not in name


def _convolution(node: Node, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Convolution kernels [out, in, width], split into direction and length.

    The original is weight-normalised: weight = weight_g * weight_v / ||weight_v||. The export
    folded that, so weight_g = ||weight|| gives the same product.
    """
    if "stft" in node.name:
        return {}
    path = module_path(re.sub(r"/(Conv|ConvTranspose)(_quant)?$", "", node.name))
    kernel = _matrix(node, constants)
    if kernel is None:
        return {}
    if _PLAIN_CONVOLUTION.search(path):
        return {f"{path}.weight": kernel}
    length = np.sqrt(np.square(kernel).sum(axis=(1, 2), keepdims=True))
    return {f"{path}.weight_v": kernel, f"{path}.weight_g": length}


def _linear(node: Node, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Matrices, [in, out] in ONNX and [out, in] in PyTorch."""
    matrix = _matrix(node, constants)
    if matrix is None:  # a product of two activations
        return {}
    path = module_path(re.sub(r"/(Gemm_)?MatMul(_quant)?$", "", node.name))
    path = _REPEATED_ALBERT_USE.sub(r"\1", path)
    return {f"{path}.weight": matrix.T}


def _matrix(node: Node, constants: Mapping[str, Array]) -> Array | None:
    """The second operand in float32, or None if it is no constant.

    Inputs of the integer operations: data, matrix, data's zero point, matrix's zero point. The
    scale is applied by a later node and shares the matrix's name. It is a scalar, or in a matrix
    [in, out] a row of one for each column.
    """
    name = node.inputs[1]
    if name not in constants:
        return None
    if not node.op_type.endswith("Integer"):
        return constants[name]
    scale = constants[f"{name.removesuffix('_quantized')}_scale"]
    return _dequantised(constants[name], scale, constants[node.inputs[3]])


def _lstm(node: Node, constants: Mapping[str, Array]) -> dict[str, Array]:
    """One bidirectional LSTM.

    Inputs by number, from onnxruntime's `ContribOperators.md`: 1 W [2, in, 4 * hidden],
    2 R [2, hidden, 4 * hidden], 3 B [2, 8 * hidden] (input biases, then recurrent ones), 8 and 9
    scale and zero point of W, 10 and 11 of R, one each a direction.
    """
    inputs = [constants.get(name) for name in node.inputs]
    picked = [inputs[index] for index in (1, 2, 3, 8, 9, 10, 11)]
    if any(value is None for value in picked):
        raise ModelError(f"LSTM {node.name} lacks a constant; tests/models/kokoro.py expects all")
    w, r, bias, w_scale, w_zero, r_scale, r_zero = (np.asarray(value) for value in picked)
    each = (-1, 1, 1)
    input_weights = _dequantised(w, w_scale.reshape(each), w_zero.reshape(each))
    hidden_weights = _dequantised(r, r_scale.reshape(each), r_zero.reshape(each))
    hidden = r.shape[1]
    rows = np.concatenate([np.arange(gate * hidden, (gate + 1) * hidden) for gate in _GATE_ORDER])
    path = module_path(node.name.removesuffix("/LSTM_quant"))
    found: dict[str, Array] = {}
    for direction, suffix in enumerate(("l0", "l0_reverse")):
        input_bias, hidden_bias = np.split(bias[direction], 2)
        found[f"{path}.weight_ih_{suffix}"] = input_weights[direction].T[rows]
        found[f"{path}.weight_hh_{suffix}"] = hidden_weights[direction].T[rows]
        found[f"{path}.bias_ih_{suffix}"] = input_bias[rows]
        found[f"{path}.bias_hh_{suffix}"] = hidden_bias[rows]
    return found


def _embedding(node: Node, constants: Mapping[str, Array]) -> dict[str, Array]:
    """Embedding tables: looked up while quantised, dequantised afterwards."""
    if "Gather_quant" not in node.name:
        return {}
    _, scale, zero_point = node.inputs
    name = scale.removesuffix("_scale")
    table = _dequantised(constants[f"{name}_quantized"], constants[scale], constants[zero_point])
    return {module_path(name): table}


def _dequantised(quantised: Array, scale: Array, zero_point: Array) -> Array:
    """Linear quantisation: value = (quantised - zero_point) * scale, in float32."""
    shifted = quantised.astype(np.float32) - zero_point.astype(np.float32)
    return np.asarray(shifted * scale.astype(np.float32))
