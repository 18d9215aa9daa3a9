"""The built wheel, installed into an empty environment away from the sources, passes the core tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NEEDED = ("pytest", "hypothesis", "beartype", "pytest-asyncio", "pyarrow")
CORE_TESTS = ("compressors", "retrievers")

INI = """
[pytest]
pythonpath = tests
asyncio_default_fixture_loop_scope = function
addopts = --import-mode=importlib --jaxtyping-packages=rarebit,support.checked
markers =
    slow
    unchecked
filterwarnings = error
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.mark.slow
def test_it_holds_every_module_once_and_nothing_else(wheel: Path) -> None:
    names = [name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name]
    wanted = {
        f"{target}/{path.relative_to(ROOT / source)}"
        for source, target in {
            "src/rarebit": "rarebit",
            "src/llama_index": "llama_index",
            "retrievers": "rarebit/retrievers",
            "compressors": "rarebit/compressors",
            "integrations": "rarebit/integrations",
            "cookbook": "rarebit/cookbook",
        }.items()
        for path in (ROOT / source).rglob("*")
        if path.is_file() and path.suffix in (".py", ".typed", ".md", ".json", ".safetensors")
        if "results" not in path.parts  # the figures of the benchmarks are for readers of the repository
        if not any((ROOT / source / part).is_symlink() for part in path.relative_to(ROOT / source).parts[:1])
    }
    assert sorted(names) == sorted(wanted)


@pytest.mark.slow
def test_installed_without_extras_and_sources_it_passes_the_core_tests(wheel: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "VIRTUAL_ENV"))}
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt", wheel, *NEEDED]
    subprocess.run(install, check=True, cwd=tmp_path, env=environment)
    for folder in ("support", *CORE_TESTS):
        shutil.copytree(ROOT / "tests" / folder, tmp_path / "tests" / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "tests")
    (tmp_path / "pytest.ini").write_text(INI)
    run = [python, "-m", "pytest", "-q", "-m", "not slow", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(run, check=False, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    absent = "import importlib.util as u; print([m for m in ('torch', 'langchain_core', 'llama_index') if u.find_spec(m)])"
    assert subprocess.run([python, "-c", absent], check=True, capture_output=True, text=True).stdout.strip() in (
        "[]",
        "['llama_index']",  # the namespace that the wheel itself adds to
    )
    where = subprocess.run(
        [python, "-c", "import rarebit; print(rarebit.__file__)"], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert str(tmp_path) in where.stdout
