"""SitEmb over one causal model: against its definition, written again without batches or padding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("transformers", reason="SitEmb needs the extra models")
from support import tiny_sitemb
from support.tiny_sitemb import END, HIDDEN, POSITIONS, QUERIES, SETTINGS, at_ends, parts, prose, reference
from transformers import Qwen3ForCausalLM

from rarebit import retrievers
from rarebit.errors import InputError
from rarebit.retrievers.situating import SitEmb
from rarebit.retrievers.situating.sitemb import QUERY_INSTRUCTION

pytestmark = pytest.mark.usefixtures("_one_thread")

CLOSE = 1e-5


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_sitemb.base(tmp_path_factory.mktemp("base"))


def over(base: Path, *, side: str = "left", **settings: Any) -> SitEmb:
    """Make an encoder of the model without an adapter."""
    tokenizer = tiny_sitemb.tokenizer()
    tokenizer.padding_side = side
    return SitEmb(parts(base)[0], tokenizer, **{**SETTINGS, **settings})


@pytest.mark.parametrize("side", ["left", "right"])
def test_what_is_read_side_by_side_changes_nothing(base: Path, side: str) -> None:
    documents = [prose(count, seed=count) for count in (1, 7, 2, 5)]
    chunks = [chunk for document in documents for chunk in document]
    names = [number for number, document in enumerate(documents) for _ in document]
    together = over(base, side=side, batch_size=64).embed_documents_grouped(chunks, names)
    one_by_one = over(base, side=side, batch_size=1)
    wanted = np.concatenate([one_by_one.embed_document(document) for document in documents])
    np.testing.assert_allclose(together, wanted, atol=CLOSE)
    alone, situated = (np.concatenate(own) for own in zip(*(reference(parts(base)[0], own) for own in documents), strict=True))
    np.testing.assert_allclose(together, situated + 0.5 * alone, atol=CLOSE)
    queries = over(base, side=side, batch_size=64).embed_queries(QUERIES)
    np.testing.assert_allclose(queries, np.concatenate([one_by_one.embed_queries([query]) for query in QUERIES]), atol=CLOSE)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=CLOSE)


@pytest.mark.parametrize("side", ["left", "right"])
def test_batches_are_filled_up_on_the_side_of_the_tokenizer(base: Path, side: str) -> None:
    seen: list[dict[str, Any]] = []
    hook = parts(base)[0].register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    try:
        over(base, side=side).embed_queries(["bab bab bab", "bab"])
    finally:
        hook.remove()
    there, positions = (seen[0][name].numpy() for name in ("attention_mask", "position_ids"))
    assert there[:, 0 if side == "left" else -1].tolist() == [1, 0]
    for row, counted in zip(there, positions, strict=True):
        assert counted[row == 1].tolist() == list(range(row.sum()))


def test_only_the_situated_vector_depends_on_the_context(base: Path) -> None:
    own, chunks = over(base), prose(6)
    changed = [*chunks[:2], "bab bong", *chunks[3:]]
    (alone, situated), (alone_after, situated_after) = own.embed_apart(chunks), own.embed_apart(changed)
    same = [0, 1, 3, 4, 5]
    np.testing.assert_allclose(alone[same], alone_after[same], atol=CLOSE)
    moved = np.abs(situated - situated_after).max(axis=1)
    assert moved[:3].min() > 0.01
    assert moved[3:].max() < CLOSE


@pytest.mark.parametrize("residual", [0, 0.5, 2])
def test_the_sum_scores_as_its_parts_do(base: Path, residual: float) -> None:
    own, chunks = over(base, residual=residual), prose(6)
    alone, situated = own.embed_apart(chunks)
    queries = own.embed_queries(QUERIES)
    stored = own.embed_document(chunks)
    np.testing.assert_allclose(queries @ stored.T, queries @ situated.T + residual * queries @ alone.T, atol=CLOSE)
    norms = np.linalg.norm(stored, axis=1)
    assert np.ptp(norms) > 0.01 if residual else np.allclose(norms, 1, atol=CLOSE)


def rows_of(own: SitEmb, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Give the sequences that the model will have read."""
    rows: list[list[int]] = []
    read = own._states.states
    monkeypatch.setattr(own._states, "states", lambda given, *others: (rows.extend(given), read(given, *others))[1])
    return rows


def test_what_does_not_fit_is_cut_off_the_context(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, whole, chunks = over(base, max_length=34), over(base), prose(3, seed=4)
    rows, all_rows = rows_of(own, monkeypatch), rows_of(whole, monkeypatch)
    found = own.embed_document(chunks)
    whole.embed_document(chunks)
    for chunk, row, entire in zip(chunks, rows, all_rows, strict=True):
        tokens = tiny_sitemb.tokenizer()(chunk, add_special_tokens=False)["input_ids"]
        assert row[: len(tokens) + 1] == [*tokens, 0]
        assert len(entire) > len(row) == 34
        assert row[-1] == entire[-1] == 0
        assert row[:-1] == entire[:33]
        assert row.count(0) == 2
    alone, situated = reference(parts(base)[0], chunks, 34)
    np.testing.assert_allclose(found, situated + 0.5 * alone, atol=CLOSE)


def test_a_long_query_keeps_its_end_token(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = over(base, max_length=30)
    rows = rows_of(own, monkeypatch)
    found = own.embed_queries(["bab " * 50])
    assert (len(rows[0]), rows[0][-1], rows[0].count(0)) == (30, 0, 1)
    wanted = at_ends(parts(base)[0], SETTINGS["query_instruction"] + "bab " * 50, 30)[0]
    np.testing.assert_allclose(found[0], wanted, atol=CLOSE)


def test_a_chunk_is_never_cut(base: Path) -> None:
    tokens = tiny_sitemb.tokenizer()("bab dong", add_special_tokens=False)["input_ids"]
    exactly = over(base, max_length=len(tokens) + 2)
    alone, situated = exactly.embed_apart(["bab dong"])
    ends = at_ends(parts(base)[0], f"bab dong{END}")
    np.testing.assert_allclose([alone[0], situated[0]], ends, atol=CLOSE)
    with pytest.raises(InputError, match=rf"chunk of {len(tokens)} tokens, which begins 'bab dong', wanted {len(tokens) - 1}"):
        over(base, max_length=len(tokens) + 1).embed_document(["bab", "bab dong"])


def test_an_end_token_that_a_text_spells_out_is_text(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = over(base)
    rows = rows_of(own, monkeypatch)
    own.embed_document([f"bab {END} dong", "teck"])
    own.embed_queries([f"what is {END}?"])
    assert [row.count(0) for row in rows] == [2, 2, 1]


def test_a_head_for_the_next_token_is_left_out(base: Path) -> None:
    chunks = prose(3)
    head = Qwen3ForCausalLM.from_pretrained(base)
    found = SitEmb(head, tiny_sitemb.tokenizer(), **SETTINGS).embed_document(chunks)
    np.testing.assert_allclose(found, over(base).embed_document(chunks), atol=CLOSE)


def test_one_chunk_and_none(base: Path) -> None:
    own = over(base)
    first, second = at_ends(parts(base)[0], f"teck{END}Around it:\nteck")
    np.testing.assert_allclose(own.embed_document(["teck"])[0], second + 0.5 * first, atol=CLOSE)
    assert own.embed_document([]).shape == own.embed_queries([]).shape == (0, HIDDEN)
    found = own.embed_document(["", "teck", " \n"])
    assert np.array_equal(found.any(axis=1), [False, True, False])
    np.testing.assert_allclose(found[1], second + 0.5 * first, atol=CLOSE)
    assert [vectors.any() for vectors in own.embed_apart(["", " "])] == [False, False]


def test_defaults_are_those_of_the_card(base: Path) -> None:
    own = SitEmb(*parts(base))
    assert (own.residual, own.block, own.max_length, own.dim) == (0.5, 16, POSITIONS, HIDDEN)
    assert QUERY_INSTRUCTION.startswith("Instruct: ")
    assert "\nQuery:" in QUERY_INSTRUCTION


@pytest.mark.unchecked
def test_wrong_input_is_named(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = parts(base)
    with pytest.raises(InputError, match="got str, wanted a model of transformers"):
        SitEmb("Qwen/Qwen3-Embedding-8B", tokenizer)
    with pytest.raises(InputError, match="max_length=2"):
        SitEmb(model, tokenizer, max_length=2)
    with pytest.raises(InputError, match="residual=nan"):
        SitEmb(model, tokenizer, residual=float("nan"))
    with pytest.raises(InputError, match="block=0, batch_size=4"):
        SitEmb(model, tokenizer, block=0)
    with pytest.raises(InputError, match="got one text"):
        over(base).embed_apart("a chunk")
    with pytest.raises(InputError, match="query 0 is NoneType"):
        over(base).embed_queries([None])
    with pytest.raises(InputError, match="pads on the side 'middle'"):
        SitEmb(model, type("Tokenizer", (), {"padding_side": "middle"})())
    monkeypatch.setattr(tokenizer, "get_vocab", dict)
    with pytest.raises(InputError, match=r"without the token '<\|endoftext\|>'"):
        SitEmb(model, tokenizer)


def test_names_are_loaded_when_they_are_used() -> None:
    situating = retrievers.situating
    assert set(dir(situating)) == set(situating.__all__)
    assert situating.SitEmb is SitEmb
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = situating.Nothing
