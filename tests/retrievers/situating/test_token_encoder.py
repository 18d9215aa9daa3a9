"""Encoders for late chunking: what is taken from them, and which cannot do it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("sentence_transformers", reason="late chunking needs the extra models")
import torch
from sentence_transformers import SentenceTransformer
from support import tiny_encoders
from support.tiny_encoders import POSITIONS, WORDS

from rarebit.errors import InputError, MissingExtraError
from rarebit.retrievers.situating import LateChunking

pytestmark = pytest.mark.usefixtures("_one_thread")


def test_an_encoder_in_training_is_used_without_dropout(folders: dict[str, Path]) -> None:
    document = " ".join(WORDS)
    encoder = tiny_encoders.encoder(folders["bert"])
    wanted = LateChunking(encoder).embed(document, [document])
    np.testing.assert_allclose(LateChunking(encoder.train()).embed(document, [document]), wanted, atol=1e-6)


def test_half_precision_is_summed_in_single(folders: dict[str, Path]) -> None:
    chunks = [" ".join(WORDS), " ".join(reversed(WORDS))]
    document = " ".join(chunks)
    encoder = tiny_encoders.encoder(folders["bert"], dense=True)
    wanted = LateChunking(encoder).embed(document, chunks)
    found = LateChunking(encoder.to(torch.bfloat16)).embed(document, chunks)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=0.05)


@pytest.mark.unchecked
def test_what_cannot_be_is_refused(folders: dict[str, Path]) -> None:
    encoder = tiny_encoders.encoder(folders["bert"])
    with pytest.raises(InputError, match="window of 65 tokens, wanted 64 at most"):
        LateChunking(encoder, window=65)
    with pytest.raises(InputError, match="overlap of 14, wanted room for more"):
        LateChunking(encoder, window=16, overlap=14)
    with pytest.raises(InputError, match="batch_size=0"):
        LateChunking(encoder, batch_size=0)
    with pytest.raises(InputError, match="overlap=-1"):
        LateChunking(encoder, overlap=-1)
    with pytest.raises(InputError, match="got str, wanted a SentenceTransformer"):
        LateChunking("all-MiniLM-L6-v2")
    with pytest.raises(InputError, match="pools once"):
        LateChunking(tiny_encoders.encoder(folders["bert"], pooling=("cls", "mean")))
    own = LateChunking(encoder)
    with pytest.raises(InputError, match="chunk 0, which begins 'teck', does not stand in the document"):
        own.embed("bab dong", ["teck"])
    with pytest.raises(InputError, match="document 1: chunk 0"):
        own.embed_many(["bab", "dong"], [["bab"], ["bab"]])
    with pytest.raises(InputError, match="2 documents and the chunks of 1"):
        own.embed_many(["bab", "dong"], [["bab"]])
    with pytest.raises(InputError, match="span 1 from 2 to 9 of a document of 8 characters"):
        own.embed_spans("bab dong", [(0, 2), (2, 9)])
    with pytest.raises(InputError, match="no Unicode text"):
        own.embed("bab \ud800", ["bab"])


def test_encoders_that_cannot_do_it_are_refused(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tiny_encoders.encoder(folders["bert"])
    with pytest.raises(InputError, match="Pooling, wanted one that begins with a transformer"):
        LateChunking(SentenceTransformer(modules=[encoder[1]], device="cpu"))
    with pytest.raises(InputError, match="Transformer, wanted one that pools once"):
        LateChunking(SentenceTransformer(modules=[encoder[0]], device="cpu"))
    first: Any = encoder[0]
    monkeypatch.setitem(first.modality_config, "message", {})
    with pytest.raises(InputError, match="chat template"):
        LateChunking(encoder)
    monkeypatch.delitem(first.modality_config, "message")
    monkeypatch.setattr(type(encoder.tokenizer), "is_fast", False)
    with pytest.raises(InputError, match="does not say which characters a token stands"):
        LateChunking(encoder)


def test_the_window_is_what_model_and_encoder_allow(folders: dict[str, Path]) -> None:
    encoder = tiny_encoders.encoder(folders["bert"])
    encoder.max_seq_length = 24
    assert LateChunking(encoder).window == 24
    assert LateChunking(encoder, window=40).window == 40
    encoder.max_seq_length = int(1e30)
    assert LateChunking(encoder).window == POSITIONS
    first: Any = encoder[0]
    first.auto_model.config.max_position_embeddings = -1
    with pytest.raises(InputError, match="pass window"):
        LateChunking(encoder)
    assert LateChunking(encoder, window=50).window == 50
    # RoBERTa's positions begin behind that of the padding token.
    first.auto_model.config.max_position_embeddings = POSITIONS
    first.auto_model.embeddings.padding_idx = 1
    assert LateChunking(encoder).window == POSITIONS - 2


def test_without_sentence_transformers_the_extra_is_named(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match="models"):
        LateChunking(tiny_encoders.encoder(folders["bert"]))


def test_the_import_loads_no_torch() -> None:
    script = "import sys, rarebit.retrievers.situating; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
