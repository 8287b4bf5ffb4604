"""Who may import what, each rule with its reason. Files are parsed, nothing is imported."""

import re
import sys
import tomllib
from collections.abc import Iterable
from typing import Final

import msgspec
import pytest

from tests.architecture.tree import PACKAGES, REPOSITORY, Module, modules, within

MODEL_LIBRARIES: Final = ("mlx", "mlx_lm", "mlx_vlm", "mlx_audio", "mlx_embeddings", "PIL")
HEAVY: Final = (*MODEL_LIBRARIES, "numpy", "transformers", "torch", "scipy", "onnx")


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Modules in ``where`` may import nothing in ``banned`` but ``allowed``.

    Attributes:
        banned: "*" is everything.
        outside: Names under ``where`` for which another rule holds.
    """

    name: str
    why: str
    where: tuple[str, ...]
    banned: tuple[str, ...]
    allowed: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()

    def broken_by(self, module: Module) -> list[str]:
        """The imports that break the rule, with their lines."""
        if not self._is_in(module.name, self.where) or self._is_in(module.name, self.outside):
            return []
        return [
            f"{module.path}:{line} imports {name}: {self.why}"
            for line, name in module.imports
            if ("*" in self.banned or self._is_in(name, self.banned))
            and not self._is_in(name, self.allowed)
        ]

    @staticmethod
    def _is_in(name: str, packages: Iterable[str]) -> bool:
        return any(within(name, package) for package in packages)


RULES: Final = (
    Rule(
        name="clients know the wire alone",
        why="a client that reaches into the daemon is tied to its insides, and loads them",
        where=("ctl", "http_bridge"),
        banned=("daemon",),
        allowed=("daemon.wire",),
    ),
    Rule(
        name="the installer is the command line's",
        why="it runs programs and writes files; whoever serves takes its sockets, no more",
        where=("daemon", "http_bridge"),
        banned=("launchd",),
        allowed=("launchd.activation",),
    ),
    Rule(
        name="clients do not know each other",
        why="each is a program of its own",
        where=("ctl",),
        banned=("http_bridge",),
    ),
    Rule(
        name="the bridge is no command line",
        why="each is a program of its own",
        where=("http_bridge",),
        banned=("ctl",),
    ),
    Rule(
        name="nobody imports the worker",
        why="it is only ever run, as `python -I -m daemon.worker`: MLX lives in that process",
        where=PACKAGES,
        banned=("daemon.worker",),
        outside=("daemon.worker",),
    ),
    Rule(
        name="the worker knows little of the daemon",
        why="it must start fast and outlive the daemon that started it",
        where=("daemon.worker",),
        banned=("daemon", "ctl", "http_bridge", "launchd"),
        allowed=(
            "daemon.worker",
            "daemon.wire",
            "daemon.clock",
            "daemon.identity",
            "daemon.version",
        ),
    ),
    Rule(
        name="model libraries live in the engines",
        why="a crash in one of them may take a worker, and nothing else",
        where=PACKAGES,
        banned=HEAVY,
        outside=("daemon.worker.engines",),
    ),
    Rule(
        name="the wire stands alone",
        why="clients import it: what it imports, they import",
        where=("daemon.wire",),
        banned=PACKAGES,
        allowed=("daemon.wire",),
    ),
    Rule(
        name="what daemon and worker share stands alone",
        why="the worker imports it before it says that it is ready",
        where=("daemon.clock", "daemon.identity", "daemon.version"),
        banned=PACKAGES,
        allowed=("daemon.clock", "daemon.identity", "daemon.version"),
    ),
    Rule(
        name="the pool is pure",
        why="no I/O, clock, randomness, thread or event loop: decide must replay the same",
        where=("daemon.pool",),
        banned=("*",),
        allowed=(
            "bisect",
            "collections",
            "enum",
            "functools",
            "itertools",
            "math",
            "msgspec",
            "types",
            "typing",
            "daemon.pool",
            "daemon.wire.errors",
            "daemon.wire.units",
        ),
    ),
    Rule(
        name="the log knows events, not decisions",
        why="it writes what it is given; replay must not depend on how that was decided",
        where=("daemon.eventlog",),
        banned=PACKAGES,
        allowed=("daemon.eventlog", "daemon.pool.messages", "daemon.pool.events"),
    ),
    Rule(
        name="models are looked at, not run",
        why="what a folder is can be asked offline, without a pool",
        where=("daemon.models",),
        banned=("daemon", "ctl", "http_bridge", "launchd"),
        allowed=("daemon.models", "daemon.wire", "daemon.pool.messages", "daemon.pool.shapes"),
    ),
    Rule(
        name="the supervisor decides nothing",
        why="it carries effects out and answers with commands; the kernel writes state",
        where=("daemon.supervisor",),
        banned=("daemon.kernel", "daemon.server", "daemon.eventlog", "daemon.pool.decide"),
    ),
    Rule(
        name="services do not import programs",
        why="a plist is written without the program that it runs",
        where=("launchd",),
        banned=("daemon", "ctl", "http_bridge"),
        allowed=("daemon.wire",),
    ),
    Rule(
        name="the programs do not import their tests",
        why="tests are not in the wheel",
        where=PACKAGES,
        banned=("tests", "benchmarks", "pytest", "hypothesis"),
    ),
)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule(rule: Rule) -> None:
    broken = [found for module in modules(*PACKAGES) for found in rule.broken_by(module)]
    assert broken == []


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_is_about_modules_that_exist(rule: Rule) -> None:
    """A rule about a renamed package would hold for ever."""
    names = {module.name for module in modules(*PACKAGES)}
    for package in (*rule.where, *rule.outside):
        assert any(within(name, package) for name in names), f"there is no {package}"


def test_tests_reach_the_worker_through_its_process_or_its_engines() -> None:
    """Fakes and contract tests stand in for the worker's parts; nothing else needs them."""
    allowed = (
        "tests.fakes",
        "tests.contract",
        "tests.daemon.worker",
        "tests.architecture",
        "benchmarks.stand_in_worker",
    )
    found = {
        module.path
        for module in modules("tests", "benchmarks")
        for _, name in module.imports
        if within(name, "daemon.worker") and not any(within(module.name, a) for a in allowed)
    }
    assert found == set()


def test_imports_name_declared_dependencies_or_the_standard_library() -> None:
    """What is not declared works by luck: until a dependency drops it."""
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        listed = tomllib.load(file)["project"]["dependencies"]
    names = {re.split(r"[^a-z0-9-]", entry)[0] for entry in listed}
    declared = {{"pillow": "PIL"}.get(name, name.replace("-", "_")) for name in names}
    known = declared | set(sys.stdlib_module_names) | set(PACKAGES)
    strange = {
        f"{module.path}:{line} {name}"
        for module in modules(*PACKAGES)
        for line, name in module.imports
        if name.partition(".")[0] not in known
    }
    assert strange == set()
