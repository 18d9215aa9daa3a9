"""The corpus of the quickstart: the documentation that every CPython carries.

The language reference's topics (``help("with")``) and the docstrings of the standard library, read from its source files
without importing them; those of the modules written in C come from the modules themselves.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import platform
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from rarebit.passages import cut

SHORTEST = 80
"""Characters of the shortest docstring worth finding."""

IN_C = ("builtins", "itertools", "math", "time", "sys", "_collections", "_functools", "_random", "_struct", "_thread")
LEFT_OUT = ("test", "tests", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "site-packages", "ensurepip", "encodings")


@dataclass(frozen=True)
class Entry:
    """A passage, the name that ``help()`` knows it by, and where it is from."""

    text: str
    name: str
    module: str
    kind: str


def corpus() -> list[Entry]:
    """Give every passage, each text once, in a fixed order."""
    found: dict[str, Entry] = {}
    for name, text, module, kind in (*_topics(), *_source_docstrings(), *_c_docstrings()):
        for _, piece in cut(text):
            passage = f"{name}: {piece}"
            found.setdefault(passage, Entry(passage, name, module, kind))
    return list(found.values())


def version() -> str:
    """Name the Python whose documentation it is."""
    return f"Python {platform.python_version()}"


def _topics() -> Iterator[tuple[str, str, str, str]]:
    from pydoc_data.topics import topics

    for name, text in sorted(topics.items()):
        yield name, text, "language reference", "topic"


def _source_docstrings() -> Iterator[tuple[str, str, str, str]]:
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts  # a package is documented in its __init__.py
        if not any(part in LEFT_OUT or part.startswith("_") for part in parts):
            yield from _docstrings(path, ".".join(parts))


def _docstrings(path: Path, module: str) -> Iterator[tuple[str, str, str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old escapes in the library's own docstrings
        tree = ast.parse(path.read_bytes())
    waiting: list[tuple[ast.AST, str]] = [(tree, module)]
    while waiting:
        node, name = waiting.pop(0)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring and len(docstring) >= SHORTEST:
                yield name, docstring, module, type(node).__name__.removesuffix("Def").lower()
        if isinstance(node, ast.Module | ast.ClassDef):
            children = (
                child for child in node.body if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
            )
            waiting += [(child, f"{name}.{child.name}") for child in children if not child.name.startswith("_")]


def _c_docstrings() -> Iterator[tuple[str, str, str, str]]:
    for module_name in IN_C:
        module = importlib.import_module(module_name)
        members = vars(module)
        for name in sorted(members):
            if not name.startswith("_"):
                # Tools replace the hooks of sys; the original is kept between underscores.
                member = members.get(f"__{name}__", members[name])
                yield from _documented(member, f"{module_name.lstrip('_')}.{name}", module)


def _documented(member: object, name: str, module: ModuleType) -> Iterator[tuple[str, str, str, str]]:
    own = getattr(member, "__module__", module.__name__) in (module.__name__, module.__name__.lstrip("_"))
    if not own or not callable(member):
        return
    described = inspect.getdoc(member)
    if described and len(described) >= SHORTEST:
        yield name, described, module.__name__.lstrip("_"), "class" if isinstance(member, type) else "function"
    if isinstance(member, type):
        for inner, method in sorted(vars(member).items()):
            docstring = inspect.getdoc(method) if callable(method) and not inner.startswith("_") else None
            if docstring and len(docstring) >= SHORTEST:
                yield f"{name}.{inner}", docstring, module.__name__.lstrip("_"), "function"
