"""Kokoro conversion, operation by operation, against the definitions of both sides."""

import numpy as np
import pytest

from tests.models import ModelError
from tests.models.kokoro import module_path, torch_weights
from tests.models.onnx_reader import Array, Graph, Node

RANDOM = np.random.default_rng(0)

# Enough of a text encoder for the converter to recognise the model.
BERT = {"encoder.bert.embeddings.LayerNorm.bias": np.ones(3, np.float32)}


def bytes_of(*shape: int) -> Array:
    return RANDOM.integers(0, 256, shape).astype(np.uint8)


def converted(*nodes: Node, **constants: Array) -> dict[str, Array]:
    """Weights of a graph; constants are named by keyword with `__` for characters Python lacks."""
    named = {name.replace("__", "."): value for name, value in constants.items()}
    return torch_weights(Graph(list(nodes), named | BERT))


@pytest.mark.parametrize(
    ("exported", "original"),
    [
        ("encoder.bert.embeddings.LayerNorm.bias", "bert.embeddings.LayerNorm.bias"),
        ("/encoder/text_encoder/cnn.0/cnn.0.0", "text_encoder.cnn.0.0"),
        ("encoder.text_encoder.cnn.0.1.gamma", "text_encoder.cnn.0.1.gamma"),
        ("/encoder/F0.1/conv1x1", "predictor.F0.1.conv1x1"),
        ("encoder.predictor.F0.1.pool.bias", "predictor.F0.1.pool.bias"),
        ("/encoder/predictor/text_encoder/lstms.1/fc", "predictor.text_encoder.lstms.1.fc"),
        ("/decoder/decoder/asr_res/asr_res.0", "decoder.asr_res.0"),
        ("decoder.decoder.generator.ups.0.bias", "decoder.generator.ups.0.bias"),
    ],
)
def test_module_paths(exported: str, original: str) -> None:
    assert module_path(exported) == original


def test_quantised_matrices_are_transposed() -> None:
    matrix, scale, zero = bytes_of(2, 3), np.array([0.5, 1, 2], np.float32), bytes_of(3)
    inputs = ("x", "m_quantized", "x_zero_point", "m_zero_point")
    node = Node("/encoder/bert_encoder/MatMul_quant", "MatMulInteger", inputs)
    weights = converted(node, m_quantized=matrix, m_scale=scale, m_zero_point=zero)
    for column in range(3):
        expected = [(int(each) - int(zero[column])) * scale[column] for each in matrix[:, column]]
        assert weights["bert_encoder.weight"][column].tolist() == expected


def test_albert_s_repeated_layer_is_one_layer() -> None:
    names = [f"/encoder/bert/layer/attention/query{suffix}/MatMul" for suffix in ("", "_1", "_11")]
    nodes = [Node(name, "MatMul", ("x", "m")) for name in names]
    weights = converted(*nodes, m=np.ones((2, 3), np.float32))
    assert [name for name in weights if "query" in name] == ["bert.layer.attention.query.weight"]


def test_products_of_activations_are_no_weights() -> None:
    assert not any("attention" in name for name in converted(Node("/a", "MatMul", ("x", "y"))))


def test_weight_normalisation_gives_the_kernel_back() -> None:
    kernel = RANDOM.standard_normal((2, 3, 5)).astype(np.float32)
    node = Node("/decoder/decoder/generator/ups.0/ConvTranspose", "ConvTranspose", ("x", "k"))
    weights = converted(node, k=kernel)
    v = weights["decoder.generator.ups.0.weight_v"]
    g = weights["decoder.generator.ups.0.weight_g"]
    assert g.shape == (2, 1, 1)
    norms = [float(np.linalg.norm(each)) for each in v]
    for row in range(2):
        np.testing.assert_allclose(g[row] * v[row] / norms[row], kernel[row], rtol=1e-6)


def test_projections_are_not_weight_normalised() -> None:
    node = Node("/encoder/F0_proj/Conv", "Conv", ("x", "k"))
    weights = converted(node, k=np.ones((1, 2, 1), np.float32))
    assert weights["predictor.F0_proj.weight"].shape == (1, 2, 1)


def test_fourier_bases_are_no_weights() -> None:
    node = Node("/decoder/decoder/generator/istft/stft/ConvTranspose", "ConvTranspose", ("x", "k"))
    weights = converted(node, k=np.ones((2, 1, 4), np.float32))
    assert not any("stft" in name for name in weights)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def cell(gates: Array, order: str) -> Array:
    """Hidden state after one LSTM step from zeros; `order` names the four stacked gates."""
    part = dict(zip(order, np.split(gates, 4), strict=True))
    memory = sigmoid(part["i"]) * np.tanh(part["c"])
    return np.asarray(sigmoid(part["o"]) * np.tanh(memory))


@pytest.mark.parametrize(("direction", "suffix"), [(0, "l0"), (1, "l0_reverse")])
def test_an_lstm_step_is_the_same_in_both_conventions(direction: int, suffix: str) -> None:
    size, hidden = 3, 2
    constants: dict[str, Array] = {
        "w": bytes_of(2, size, 4 * hidden),
        "r": bytes_of(2, hidden, 4 * hidden),
        "b": RANDOM.standard_normal((2, 8 * hidden)).astype(np.float32),
        "ws": np.array([0.01, 0.02], np.float32),
        "wz": np.array([100, 120], np.uint8),
        "rs": np.array([0.03, 0.04], np.float32),
        "rz": np.array([90, 110], np.uint8),
    }
    inputs = ("x", "w", "r", "b", "", "", "", "", "ws", "wz", "rs", "rz")
    node = Node("/encoder/text_encoder/lstm/LSTM_quant", "DynamicQuantizeLSTM", inputs)
    weights = converted(node, **constants)
    x = RANDOM.standard_normal(size)

    # ONNX: gates i o f c, data from the left, input and recurrent biases side by side.
    scale, zero = constants["ws"][direction], float(constants["wz"][direction])
    w = (constants["w"][direction] - zero) * scale
    bias = constants["b"][direction]
    onnx_gates = x @ w + bias[: 4 * hidden] + bias[4 * hidden :]
    # PyTorch: gates i f g o, weights [4 * hidden, in].
    path = "text_encoder.lstm"
    torch_gates = weights[f"{path}.weight_ih_{suffix}"] @ x
    torch_gates = torch_gates + weights[f"{path}.bias_ih_{suffix}"]
    torch_gates = torch_gates + weights[f"{path}.bias_hh_{suffix}"]
    np.testing.assert_allclose(cell(torch_gates, "ifco"), cell(onnx_gates, "iofc"), rtol=1e-5)

    r = (constants["r"][direction] - float(constants["rz"][direction])) * constants["rs"][direction]
    state = RANDOM.standard_normal(hidden)
    np.testing.assert_allclose(
        cell(weights[f"{path}.weight_hh_{suffix}"] @ state, "ifco"),
        cell(state @ r, "iofc"),
        rtol=1e-5,
    )


def test_embeddings() -> None:
    name = "encoder.text_encoder.embedding.weight"
    inputs = ("looked_up", f"{name}_scale", "zero")
    node = Node("/a/Gather_quant_DequantizeLinear", "DequantizeLinear", inputs)
    constants: dict[str, Array] = {
        f"{name}_quantized": np.array([[0, 130]], np.uint8),
        f"{name}_scale": np.array(0.5, np.float32),
        "zero": np.array(128, np.uint8),
    }
    weights = torch_weights(Graph([node], constants | BERT))
    assert weights["text_encoder.embedding.weight"].tolist() == [[-64, 1]]


def test_named_constants_and_the_unused_pooler() -> None:
    weights = converted(
        decoder__decoder__conv__bias=np.ones(2, np.float32),
        decoder__decoder__conv__weight_scale=np.ones(1, np.float32),
    )
    assert sorted(weights) == [
        "bert.embeddings.LayerNorm.bias",
        "bert.pooler.bias",
        "bert.pooler.weight",
        "decoder.conv.bias",
    ]
    assert {value.dtype for value in weights.values()} == {np.dtype(np.float32)}


def test_another_model_is_refused() -> None:
    with pytest.raises(ModelError, match="not the Kokoro export"):
        torch_weights(Graph())
