import ast

from daemon.models.inspect import TOOL_MARKERS
from tests.daemon.models.generate_architectures import TARGET, package_root, render


def test_the_table_is_what_the_installed_libraries_say() -> None:
    """Compared as syntax, so that the formatter has no say."""
    assert ast.dump(ast.parse(TARGET.read_text("utf-8"))) == ast.dump(ast.parse(render())), (
        "run: python -m tests.daemon.models.generate_architectures, then ruff format"
    )


def test_tool_markers_are_those_of_mlx_lm() -> None:
    source = (package_root("mlx_lm") / "tokenizer_utils.py").read_text("utf-8")
    function = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "_infer_tool_parser"
    )
    compared = {
        node.left.value
        for node in ast.walk(function)
        if isinstance(node, ast.Compare)
        and isinstance(node.left, ast.Constant)
        and isinstance(node.comparators[0], ast.Name)
        and node.comparators[0].id == "chat_template"
    }
    assert compared == {marker for markers in TOOL_MARKERS for marker in markers}
