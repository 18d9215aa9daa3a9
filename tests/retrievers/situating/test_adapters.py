"""Adapters on their base models: the published layout, what fits, and what is never read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("peft", reason="adapters need the extra sitemb")
import torch
from support import tiny_sitemb
from support.tiny_sitemb import QUERIES, SETTINGS, at_ends, parts, prose, reference

from rarebit.errors import InputError, MissingExtraError
from rarebit.retrievers.situating import SitEmb

pytestmark = pytest.mark.usefixtures("_one_thread")

CLOSE = 1e-5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sitemb.base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, base: Path) -> tuple[Path, Any]:
    """Give the folder of an adapter, and the model in memory that it was written from."""
    folder = tmp_path_factory.mktemp("adapter")
    return folder, tiny_sitemb.adapter(folder, base)


def copied(folder: Path, into: Path) -> Path:
    for path in folder.iterdir():
        (into / path.name).write_bytes(path.read_bytes())
    return into


def test_a_loaded_adapter_gives_the_vectors_of_the_model_in_memory(base: Path, adapter: tuple[Path, Any]) -> None:
    folder, model = adapter
    own = SitEmb.from_pretrained(folder, base, device="cpu", **SETTINGS)
    chunks = prose(7)
    alone, situated = reference(model, chunks)
    found = own.embed_document(chunks)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, situated + 0.5 * alone, atol=CLOSE)
    for vectors, wanted in zip(own.embed_apart(chunks), (alone, situated), strict=True):
        np.testing.assert_allclose(vectors, wanted, atol=CLOSE)
    wanted = [at_ends(model, SETTINGS["query_instruction"] + query)[0] for query in QUERIES]
    np.testing.assert_allclose(own.embed_queries(QUERIES), wanted, atol=CLOSE)
    assert own.tokenizer.padding_side == "left"
    for plain, with_adapter in zip(reference(parts(base)[0], chunks), (alone, situated), strict=True):
        assert np.abs(plain - with_adapter).max(axis=1).min() > 0.05


@pytest.mark.parametrize("rank", [1, 6])
def test_the_rank_is_that_of_the_configuration(tmp_path: Path, base: Path, rank: int) -> None:
    model = tiny_sitemb.adapter(tmp_path, base, rank=rank)
    own = SitEmb.from_pretrained(tmp_path, base, device="cpu", **SETTINGS)
    assert own.model.peft_config["default"].r == rank
    shapes = {name: tuple(weight.shape) for name, weight in own.model.named_parameters() if "lora_A" in name}
    assert len(shapes) == 8
    assert {shape[0] for shape in shapes.values()} == {rank}
    np.testing.assert_allclose(
        own.embed_queries(["teck"])[0], at_ends(model, SETTINGS["query_instruction"] + "teck")[0], atol=CLOSE
    )


def test_the_base_is_the_one_that_the_adapter_names(tmp_path: Path, base: Path, adapter: tuple[Path, Any]) -> None:
    moved = copied(adapter[0], tmp_path)
    config = moved / "adapter_config.json"
    config.write_text(config.read_text().replace("Qwen/Qwen3-Embedding-8B", base.as_posix()))
    chunks = prose(4)
    found = SitEmb.from_pretrained(str(moved), device="cpu", **SETTINGS).embed_document(chunks)
    wanted = SitEmb.from_pretrained(adapter[0], base, device="cpu", **SETTINGS).embed_document(chunks)
    assert np.array_equal(found, wanted)
    config.write_text(config.read_text().replace(f'"{base.as_posix()}"', "null"))
    with pytest.raises(InputError, match="does not name its base model"):
        SitEmb.from_pretrained(moved)


def test_half_precision_is_close(base: Path, adapter: tuple[Path, Any]) -> None:
    chunks = prose(4)
    whole, half = (SitEmb.from_pretrained(adapter[0], base, device="cpu", dtype=dtype) for dtype in (None, "bfloat16"))
    assert next(half.model.parameters()).dtype == torch.bfloat16
    np.testing.assert_allclose(half.embed_document(chunks), whole.embed_document(chunks), atol=0.1)


def test_an_adapter_of_the_model_with_its_head_finds_its_places(tmp_path: Path, base: Path, adapter: tuple[Path, Any]) -> None:
    from safetensors.torch import load_file, save_file

    moved = copied(adapter[0], tmp_path)
    arrays = load_file(moved / "adapter_model.safetensors")
    deeper = {name.replace("base_model.model.", "base_model.model.model."): array for name, array in arrays.items()}
    save_file(deeper, moved / "adapter_model.safetensors")
    found = SitEmb.from_pretrained(moved, base, device="cpu").embed_queries(QUERIES)
    wanted = SitEmb.from_pretrained(adapter[0], base, device="cpu").embed_queries(QUERIES)
    assert np.array_equal(found, wanted)
    left_out = dict(list(arrays.items())[1:])
    save_file(left_out, moved / "adapter_model.safetensors")
    with pytest.raises(InputError, match="1 weights are missing and 0 have no place"):
        SitEmb.from_pretrained(moved, base)


def test_a_model_in_training_is_used_without_dropout(base: Path, adapter: tuple[Path, Any]) -> None:
    own, chunks = SitEmb.from_pretrained(adapter[0], base, device="cpu"), prose(3)
    wanted = own.embed_document(chunks)
    own.model.train()
    assert np.array_equal(own.embed_document(chunks), wanted)


class _Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_pickles_are_never_read(tmp_path: Path, base: Path, adapter: tuple[Path, Any]) -> None:
    moved = copied(adapter[0], tmp_path)
    sprung = tmp_path / "sprung"
    torch.save(_Trap(sprung), moved / "adapter_model.bin")
    SitEmb.from_pretrained(moved, base, device="cpu")
    (moved / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match=r"got .* with adapter_model\.bin, wanted adapter_model\.safetensors"):
        SitEmb.from_pretrained(moved, base)
    (tmp_path / "base").mkdir()
    pickled = copied(base, tmp_path / "base")
    (pickled / "model.safetensors").unlink()
    torch.save(_Trap(sprung), pickled / "pytorch_model.bin")
    with pytest.raises(InputError, match="in safetensors"):
        SitEmb.from_pretrained(adapter[0], pickled)
    assert not sprung.exists()
    torch.load(moved / "adapter_model.bin", weights_only=False)
    assert sprung.exists()


def test_of_a_repository_nothing_but_the_adapter_is_fetched(
    base: Path, adapter: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        if "nobody" in name:
            raise OSError("no network")
        return str(adapter[0])

    monkeypatch.setattr("rarebit.retrievers.situating.adapters.snapshot_download", fetch)
    SitEmb.from_pretrained("SituatedEmbedding/SitEmb-v1.5-Qwen3", base, device="cpu")
    assert asked == [("SituatedEmbedding/SitEmb-v1.5-Qwen3", ["adapter_config.json", "adapter_model.safetensors"])]
    with pytest.raises(InputError, match=r"'nobody/nothing' cannot be loaded \(no network\)"):
        SitEmb.from_pretrained("nobody/nothing", base)


def test_adapters_that_cannot_be_are_refused(tmp_path: Path, base: Path, adapter: tuple[Path, Any]) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no adapter_config\.json and no adapter_model\.safetensors"):
        SitEmb.from_pretrained(tmp_path / "empty", base)
    with pytest.raises(InputError, match=r"base model '.*nowhere' cannot be loaded"):
        SitEmb.from_pretrained(adapter[0], tmp_path / "nowhere")
    with pytest.raises(InputError, match="does not fit the base model"):
        SitEmb.from_pretrained(adapter[0], tiny_sitemb.base(tmp_path / "wide", hidden=48))
    (tmp_path / "moved").mkdir()
    moved = copied(adapter[0], tmp_path / "moved")
    (moved / "adapter_model.safetensors").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is damaged"):
        SitEmb.from_pretrained(moved, base)
    (moved / "adapter_config.json").write_text('{"peft_type": "IA3"}')
    with pytest.raises(InputError, match="wanted LORA"):
        SitEmb.from_pretrained(moved, base)
    (moved / "adapter_config.json").write_text("[")
    with pytest.raises(InputError, match="no configuration of an adapter"):
        SitEmb.from_pretrained(moved, base)


def test_without_peft_the_extra_is_named(base: Path, adapter: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarebit.extras.find_spec", lambda name: None if name == "peft" else object())
    with pytest.raises(MissingExtraError, match=r"'peft'.*rarebit\[sitemb\]"):
        SitEmb.from_pretrained(adapter[0], base)
    SitEmb(*parts(base))
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="models"):
        SitEmb(*parts(base))
