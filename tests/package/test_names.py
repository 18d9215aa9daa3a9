"""The public face: what is exported, what an import loads, what the errors promise."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import rarebit
from rarebit import errors, extras
from rarebit.errors import MissingExtraError, RarebitError

ROOT = Path(__file__).parents[2]

FACE = {
    "rarebit": [
        *("And", "Collection", "Compare", "EmbeddingFingerprint", "Explanation", "Filter", "Hit", "Ids", "Not", "Or", "Row"),
        *("Stats", "Tenant", "Where", "__version__"),
    ],
    "rarebit.compressors.vectors": [
        *("Choice", "Codec", "Exact", "Float16", "Int4", "Int8", "Matryoshka", "OPQ", "PCA", "Pipeline", "Product", "QueryMap"),
        *("RaBitQ", "RankedProduct", "RecurrentBinary", "Rotation", "Scalar", "SearchableCodec", "TrellisCode", "VarianceCode"),
        *("choose", "codec_named", "load_codec", "restore_codec"),
    ],
    "rarebit.integrations.langchain": [
        "ChatOneToken",
        "ContextualRetriever",
        "CosineAdapterFilter",
        "Indexed",
        "NearDuplicateFilter",
        "OneTokenCompressor",
        "RarebitRetriever",
        "RarebitTranslator",
        "RarebitVectorStore",
        "SituatedEmbeddings",
        "index_documents",
    ],
    "rarebit.integrations.llama_index": [
        "CosineAdapterPostprocessor",
        "NearDuplicatePostprocessor",
        "OneTokenLLM",
        "OneTokenPostprocessor",
        "RarebitVectorStore",
        "RelevanceJudgedEvent",
        "SituateNodes",
        "SituatedEmbedding",
    ],
    "llama_index.llms.rarebit": ["OneTokenLLM"],
    "llama_index.postprocessor.rarebit": ["CosineAdapterPostprocessor", "NearDuplicatePostprocessor", "OneTokenPostprocessor"],
    "rarebit.retrievers.relevance": [
        *("Asked", "Background", "CosineAdapter", "Drift", "Feedback", "FixedCount", "Isotonic", "Judge", "LabelledScores"),
        *("Platt", "RawScore", "RelevanceModel", "RelevanceReport", "ScoreGap", "ScoreSource", "Target", "Verdict"),
        *("from_feedback", "from_judge", "from_judgements", "model_from", "read_feedback"),
    ],
    "rarebit.retrievers.building": [
        *("BuildReport", "Columns", "Encoder", "InProcess", "OnRay", "Recipe", "Runner", "SentenceEncoder", "Shards", "build"),
    ],
    "rarebit.retrievers.importing": [
        *("ChromaSource", "ImportReport", "LlamaIndexSource", "NumpySource", "ParquetSource", "Rows", "Source"),
        *("import_into", "source_of"),
    ],
    "llama_index.vector_stores.rarebit": ["RarebitVectorStore"],
    "rarebit.retrievers.near_duplicates": [
        *(
            "Intake",
            "MinHasher",
            "NearDuplicateIndex",
            "as_threshold",
            "jaccard",
            "near_duplicate_of",
            "normalized",
            "shingles",
        ),
        "unique",
    ],
}


@pytest.mark.parametrize("module", FACE)
def test_the_exported_names_are_these(module: str) -> None:
    loaded = import_module(module)
    assert sorted(loaded.__all__) == sorted(FACE[module])
    for name in FACE[module]:
        assert getattr(loaded, name) is not None


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="Colection"):
        rarebit.Colection  # noqa: B018
    assert set(dir(rarebit)) == set(rarebit.__all__)


HEAVY = (
    "torch",
    "transformers",
    "sentence_transformers",
    "langchain_core",
    "llama_index",
    "faiss",
    "numpy",
    "pyroaring",
    "tqdm",
)


@pytest.mark.parametrize(
    ("code", "forbidden"),
    [
        ("import rarebit", HEAVY),
        ("import rarebit.errors, rarebit.extras, rarebit.compressors.vectors", ("torch", "faiss", *HEAVY[1:5])),
        ("import rarebit.retrievers.near_duplicates", ("faiss", "scipy", *HEAVY[:5])),
        ("from rarebit import Collection; Collection.open().add([[1.0]])", HEAVY[:5]),
        ("import rarebit.cli", ("ray", "pyarrow", *HEAVY[:5])),
        ("import rarebit.integrations.langchain", ("torch", "transformers", "sentence_transformers", "llama_index")),
        ("import rarebit.integrations.llama_index", ("torch", "sentence_transformers", "langchain_core")),
    ],
)
def test_an_import_loads_nothing_heavy(code: str, forbidden: tuple[str, ...]) -> None:
    script = f"{code}\nimport sys\nprint([name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_error_tree_is_drawn_as_it_is() -> None:
    drawn = {}
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"^    ([│├└─ ]*)(\w+Error)", line)
        if found:
            depth = len(found[1]) // 4
            branch = [*branch[:depth], found[2]]
            drawn[found[2]] = branch[depth - 1] if depth else "Exception"
    real = {
        name: next(base.__name__ for base in error.__mro__[1:] if base.__name__ in (*vars(errors), "Exception"))
        for name, error in vars(errors).items()
        if isinstance(error, type) and issubclass(error, RarebitError)
    }
    assert drawn == real


def test_every_extra_exists() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(extras.EXTRAS) == set(declared)
    named = set()
    folders = ("src", "retrievers", "compressors", "integrations", "cookbook")
    for source in [*(path for folder in folders for path in (ROOT / folder).rglob("*.py")), *ROOT.glob("*.md")]:
        text = source.read_text(encoding="utf-8")
        named |= {each.strip() for found in re.findall(r"rarebit\[([a-z,\- ]+)\]", text) for each in found.split(",")}
        named |= set(re.findall(r"""require\("[\w.]+", "([\w-]+)"\)""", text))
    assert named
    assert named <= set(declared)


def test_a_missing_extra_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"'no_such_package'.*pip install 'rarebit\[langchain\]'"):
        extras.require("no_such_package.inner", "langchain")
    extras.require("json", "langchain")


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("rarebit.integrations.langchain", "langchain_core", "langchain"),
        ("rarebit.integrations.llama_index", "llama_index.core", "llama-index"),
    ],
)
def test_an_adapter_without_its_framework_names_the_extra(module: str, missing: str, extra: str) -> None:
    script = f"""
import importlib.util, sys
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == {missing!r} else found(name, *rest)
try:
    import {module}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert f"rarebit[{extra}]" in done.stdout


def test_the_version_is_the_newest_in_the_changelog() -> None:
    newest = re.search(r"^## \[(\d[\w.]*)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest
    assert newest[1] == rarebit.__version__
