"""The rooms and their one-way doors, checked on the code's own imports."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "atomr_trio"

MAY_IMPORT = {
    "core": set(),
    "actor": set(),
    "formats": {"core"},
    "catalog": {"core"},
    "grammar": {"core"},
    "text": {"core", "formats"},
    "engine": {"core", "formats", "grammar"},
    "runners": {"core", "actor", "formats", "catalog", "grammar", "text", "engine"},
    "runtime": {"core", "actor", "runners"},
    "gateway": {"core", "actor", "runners", "runtime"},
    "cli": {"core", "actor", "catalog", "engine", "runners", "runtime", "gateway"},
}
# The kit for tests may look at everything, and only tests look at it: no other room has it in its set.
MAY_IMPORT["testing"] = set(MAY_IMPORT)
FOREIGN = {
    "core": {"attrs"},
    "actor": {"attrs", "trio", "outcome"},
    "formats": {"attrs", "numpy", "gguf"},
    "catalog": {"attrs", "msgspec", "huggingface_hub"},
    "grammar": {"attrs", "numpy", "llguidance"},
    "text": {"attrs", "tokenizers", "jinja2"},
    "engine": {"attrs", "msgspec", "numpy", "jax", "ml_dtypes", "gguf"},
    "runtime": {"attrs", "trio"},
    "runners": {"attrs", "trio", "msgspec"},
    "testing": {"attrs", "trio", "outcome"},
}
FOREIGN_FILES = {"testing/pytest_plugin.py": {"pytest"}}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE)


def imported_modules(path):
    package = [PACKAGE.name, *path.parent.relative_to(PACKAGE).parts]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # `from atomr_trio import catalog` imports a room.
            yield from [f"{module}.{alias.name}" for alias in node.names] if module == PACKAGE.name else [module]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_down_only(path):
    room = path.relative_to(PACKAGE).parts[0]
    foreign = FOREIGN.get(room, set()) | FOREIGN_FILES.get(path.relative_to(PACKAGE).as_posix(), set())
    for module in imported_modules(path):
        top, *rest = module.split(".")
        if top == PACKAGE.name:
            target = rest[0] if rest else ""
            assert target in {room, *MAY_IMPORT[room]}, f"{room} imports {module}"
        elif top not in sys.stdlib_module_names and room in FOREIGN:
            assert top in foreign, f"{room} imports {module}"


@pytest.mark.parametrize(
    "module",
    [
        "atomr_trio",
        "atomr_trio.runtime",
        "atomr_trio.gateway",
        "atomr_trio.cli",
        "atomr_trio.runners.echo",
        "atomr_trio.runners.jax_local",
        "atomr_trio.engine.frames",
        "atomr_trio.testing",
    ],
)
def test_the_server_never_imports_jax(module):
    code = f"import sys, {module}; sys.exit(any(name.partition('.')[0] == 'jax' for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_the_engine_extra_everything_else_works():
    """`pip install atomr-trio` alone: no jax, tokenizers, gguf, jinja2 beyond what the web stack brings."""
    code = """
import sys
for name in ("jax", "jaxlib", "tokenizers", "gguf", "numpy", "huggingface_hub", "llguidance"):
    sys.modules[name] = None
import atomr_trio, atomr_trio.cli, atomr_trio.gateway, atomr_trio.runtime
from atomr_trio.core import Deployment, ModelLoadError
from atomr_trio.runners import RunnerRegistry
assert RunnerRegistry().create(Deployment(name="m", model="m", runtime="echo"))
try:
    RunnerRegistry().create(Deployment(name="m", model="m", runtime="jax"))
except ModelLoadError as error:
    assert "atomr-trio[jax]" in str(error), error
else:
    sys.exit("jax was found")
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
