"""Which vision models the tests would rather use, where their files are there already."""

from typing import Final

BUNDLED: Final = "mlxd/glimpse"

PREFERRED: Final = (
    "mlx-community/gemma-3-4b-it-qat-4bit",
    "mlx-community/gemma-3-12b-it-qat-4bit",
    "mlx-community/Qwen3-VL-4B-Instruct-4bit",
    "mlx-community/Qwen2.5-VL-3B-Instruct-4bit",
    "mlx-community/Qwen2-VL-2B-Instruct-4bit",
    "mlx-community/SmolVLM-Instruct-4bit",
    "mlx-community/SmolVLM2-2.2B-Instruct-mlx",
    BUNDLED,
)
"""Best first. The bundled one is always there, so that no test is ever skipped."""
