"""What every file must be: tested, of a size that can be read, finished, and about itself."""

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.architecture.tree import PACKAGES, REPOSITORY, Module, kept_files, modules

SMALL_LINES: Final = 40
"""A module of no more lines may be tested by those of its neighbours."""

MODULE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 70

STORIES: Final = "tests/scenarios/test_scenarios.py and tests/daemon/pool/test_machine.py"
LOG: Final = "tests/daemon/eventlog/test_log.py and tests/daemon/eventlog/test_damage.py"
REAL: Final = "run on tiny real models by tests/contract/test_engine_contract.py"
WORKER: Final = "run as a process by tests/daemon/worker/test_process.py"
SUPERVISED: Final = "over real workers in tests/daemon/supervisor/test_supervisor.py"

TESTED_ELSEWHERE: Final[dict[str, str]] = {
    "ctl/hub.py": "tests/ctl/verbs/test_pull.py",
    "ctl/checks.py": "tests/ctl/verbs/test_doctor.py",
    "ctl/live.py": "tests/ctl/verbs/test_top.py",
    "ctl/pulling.py": "tests/ctl/verbs/test_pull.py",
    "ctl/measuring.py": "tests/ctl/verbs/test_bench.py",
    "ctl/probing.py": "tests/ctl/verbs/test_doctor.py",
    "ctl/removing.py": "tests/ctl/verbs/test_rm.py",
    "ctl/selftest.py": "tests/ctl/verbs/test_doctor.py",
    "daemon/pool/": f"one function, decide, told as stories: {STORIES}",
    "daemon/eventlog/errors.py": LOG,
    "daemon/eventlog/opening.py": LOG,
    "daemon/eventlog/reader.py": LOG,
    "daemon/eventlog/segment.py": LOG,
    "daemon/eventlog/archive.py": "by its command in tests/daemon/test_logtool.py",
    "daemon/models/facts.py": "tests/daemon/models/test_resolve.py",
    "daemon/models/folder.py": "tests/daemon/models/test_inspect.py",
    "daemon/models/preflight.py": "tests/daemon/models/test_inspect.py",
    "daemon/processes.py": SUPERVISED,
    "daemon/supervisor/host.py": SUPERVISED,
    "daemon/supervisor/launch.py": SUPERVISED,
    "daemon/supervisor/link.py": SUPERVISED,
    "daemon/supervisor/seat.py": SUPERVISED,
    "daemon/app.py": f"{SUPERVISED}; its signals in tests/e2e/test_failures_e2e.py",
    "daemon/__main__.py": "as a process in tests/e2e/conftest.py and by all that uses it",
    "daemon/server/views.py": "tests/e2e/test_mlxctl_e2e.py",
    "daemon/wire/errors.py": "tests/architecture/test_error_codes.py",
    "daemon/wire/framing.py": "tests/daemon/worker/test_peer.py",
    "daemon/worker/engines/__init__.py": REAL,
    "daemon/worker/engines/generating.py": REAL,
    "daemon/worker/engines/text.py": REAL,
    "daemon/worker/engines/vision.py": REAL,
    "daemon/worker/engines/visionbatch.py": "tests/contract/test_vision_prefix_contract.py",
    "daemon/worker/engines/weights.py": REAL,
    "daemon/worker/inbox.py": "tests/daemon/worker/test_runner.py",
    "daemon/worker/main.py": WORKER,
    "daemon/worker/serving.py": WORKER,
    "daemon/worker/spare.py": WORKER,
    "http_bridge/__main__.py": "as a process in tests/e2e/conftest.py and by all that uses it",
    "http_bridge/openai_common.py": "tests/http_bridge/test_openai_chat.py",
    "http_bridge/openai_reply.py": (
        "tests/http_bridge/test_openai_chat_reply.py and "
        "tests/http_bridge/test_openai_completions.py"
    ),
    "http_bridge/plan.py": "tests/http_bridge/test_serving.py",
    "http_bridge/sse.py": "tests/http_bridge/test_serving.py",
}
"""Modules (or folders of them) without a test file of their name, and where their behaviour
is tested: found by recording which functions each folder of tests runs."""

NOT_TESTED: Final[dict[str, str]] = {
    "daemon/supervisor/memory.py": "only that a daemon starts with what it gives",
}
"""Gaps, by name: no test would notice if these were wrong."""

LONG_BY_NATURE: Final[dict[str, str]] = {
    "daemon/models/architectures.py": "one table, written by a generator",
    "daemon/pool/events.py": "a list of events, one Struct each",
}


def test_every_module_has_a_test_file_of_its_name() -> None:
    missing = {
        module.path
        for module in modules(*PACKAGES)
        if len(module.text.splitlines()) > SMALL_LINES
        and behaves(module)
        and not (REPOSITORY / mirror(module.path)).exists()
    }
    excused = {
        path for path in missing for place in TESTED_ELSEWHERE if path.startswith(place)
    } | NOT_TESTED.keys()
    assert missing - excused == set()


@pytest.mark.parametrize(("path", "where"), TESTED_ELSEWHERE.items())
def test_what_is_tested_elsewhere_is(path: str, where: str) -> None:
    """The reason names the files, and each of them exists."""
    assert (REPOSITORY / path).exists()
    files = re.findall(r"tests/[\w/]+\.py", where)
    assert files, f"{path}: say which test file"
    assert [file for file in files if not (REPOSITORY / file).exists()] == []


def behaves(module: Module) -> bool:
    """Whether a module has code to run, and not only declarations."""
    return any(
        isinstance(statement, ast.Return | ast.Assign | ast.If | ast.Raise | ast.With | ast.Try)
        for node in ast.walk(ast.parse(module.text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
    )


def mirror(path: str) -> str:
    """Where the tests of a module are: ``daemon/kernel.py``, ``tests/daemon/test_kernel.py``."""
    folder, _, name = path.rpartition("/")
    return f"tests/{folder}/test_{name.removeprefix('__').replace('__.py', '.py')}"


def test_modules_can_be_read_in_one_sitting() -> None:
    long = {
        module.path: len(module.text.splitlines())
        for module in modules(*PACKAGES, "tests", "benchmarks")
        if len(module.text.splitlines()) > MODULE_LINES_MAX
    }
    assert long.keys() == LONG_BY_NATURE.keys(), long


def test_functions_fit_on_a_page() -> None:
    long = {
        f"{module.path}:{node.lineno} {node.name}"
        for module in modules(*PACKAGES)
        for node in ast.walk(ast.parse(module.text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or 0) - node.lineno >= FUNCTION_LINES_MAX
    }
    assert long == set()


def test_every_folder_of_modules_is_a_package() -> None:
    folders = {Path(module.path).parent for module in modules(*PACKAGES, "tests", "benchmarks")}
    assert {f for f in folders if not (REPOSITORY / f / "__init__.py").exists()} == set()


# Brackets keep this file from naming what it looks for.
UNFINISHED: Final = re.compile(r"\b(TOD[O]|FIXM[E]|XX[X]|HAC[K])\b")
ELSEWHERE: Final = re.compile(
    r"(?<![\w.])/w[o]rk/|[.]{2}/share[d]\b|(?<!\w)/roo[t]/|\bpyp[i][.](org|python)|pythonhoste[d]"
    r"|registry[.](npmj[s]|yarnpk[g])|--(extra-)?index-ur[l]|https?://[^\s/]+/simpl[e]\b"
)


def texts() -> list[tuple[str, str]]:
    """Path and content of every file that git keeps and that is text."""
    found = []
    for path in kept_files():
        try:
            found.append((path.relative_to(REPOSITORY).as_posix(), path.read_text("utf-8")))
        except UnicodeDecodeError:
            continue
    return found


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        (UNFINISHED, "finish it, or write it into the list of known gaps"),
        (ELSEWHERE, "a clone knows no folder or host of the machine where it was written"),
    ],
    ids=["unfinished", "elsewhere"],
)
def test_nothing_points_out_of_the_repository_or_into_the_future(
    pattern: re.Pattern[str], why: str
) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:100]} ({why})"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []


PATH_IN_TEXT: Final = re.compile(
    r"(?<![\w/.-])(?:daemon|ctl|http_bridge|launchd|tests|benchmarks|docs|\.github)/[\w./{},*-]*\w"
)


@pytest.mark.parametrize(
    "name",
    ["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md", "Makefile", ".github/workflows/ci.yml"],
)
def test_documents_name_files_that_exist(name: str) -> None:
    """``a/{b,c}.py`` stands for both, ``a/*.py`` for at least one."""
    gone = {
        path
        for given in PATH_IN_TEXT.findall((REPOSITORY / name).read_text("utf-8"))
        for path in spelled_out(given)
        if not any(REPOSITORY.glob(path))
    }
    assert gone == set()


def test_the_code_map_has_every_module_and_no_other() -> None:
    text = (REPOSITORY / "ARCHITECTURE.md").read_text("utf-8")
    mapped: set[str] = set()
    folder = ""
    for line in text.partition("## Code map")[2].partition("\n## ")[0].splitlines():
        if heading := re.match(r"\*\*`([\w/]+/)`\*\*", line):
            folder = heading[1]
        elif entry := re.match(r"- `(\w+\.py)`: \S", line):
            mapped.add(folder + entry[1])
    paths = {m.path for m in modules(*PACKAGES) if not m.path.endswith("__init__.py")}
    assert mapped == paths


DOCUMENT: Final = re.compile(r"\b(?:docs/)?\w+\.md\b")


def test_programs_refer_to_documents_that_exist() -> None:
    gone = {
        f"{module.path}: {name}"
        for module in modules(*PACKAGES)
        for name in DOCUMENT.findall(module.text)
        if not (REPOSITORY / name).exists()
    }
    assert gone == set()


def spelled_out(path: str) -> list[str]:
    """``a/{b,c}.py`` as two paths."""
    before, brace, rest = path.partition("{")
    if not brace:
        return [path]
    inside, _, after = rest.partition("}")
    return [f"{before}{choice}{end}" for choice in inside.split(",") for end in spelled_out(after)]


def test_what_git_keeps_is_small() -> None:
    """A clone is quick: the bundled model is the one large file."""
    large = {
        path.relative_to(REPOSITORY).as_posix(): path.stat().st_size
        for path in kept_files()
        if path.stat().st_size > 1_000_000
    }
    assert sum(large.values()) <= 12_000_000, large
