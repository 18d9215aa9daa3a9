from __future__ import annotations

import copy
import inspect
import math
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from rarebit import Collection, EmbeddingFingerprint, errors
from rarebit.integrations.langchain import RarebitVectorStore
from rarebit.integrations.langchain.opening import CollectionSettings

HEADINGS = [
    "Setup:",
    "Key init args:",
    "Instantiate:",
    "Add:",
    "Delete:",
    "Search:",
    "with filter:",
    "with score:",
    "Async:",
    "Use as Retriever:",
]


def ids_of(documents: list[Document]) -> list[str | None]:
    return [document.id for document in documents]


class TestConstruction:
    def test_without_langchain_the_extra_is_named(self) -> None:
        script = "import sys; sys.modules['langchain_core'] = None; import rarebit.integrations.langchain"
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert "MissingExtraError" in done.stderr
        assert "pip install 'rarebit[langchain]'" in done.stderr

    def test_headings_stand_in_their_order(self) -> None:
        lines = [line.strip() for line in (RarebitVectorStore.__doc__ or "").splitlines()]
        assert [line for line in lines if line in HEADINGS] == HEADINGS

    @pytest.mark.parametrize(
        ("name", "meant"), [("codecs", "codec"), ("score_keys", "score_key"), ("finger_print", "fingerprint")]
    )
    def test_a_misspelt_keyword_is_named_with_what_was_meant(self, compass: Embeddings, name: str, meant: str) -> None:
        wrong: dict[str, Any] = {name: "x"}
        with pytest.raises(errors.InputError, match=f"{name}.*did you mean '{meant}'"):
            RarebitVectorStore(compass, **wrong)
        with pytest.raises(errors.InputError, match=name):
            RarebitVectorStore.from_texts(["east"], compass, **wrong)

    def test_every_setting_of_a_collection_is_a_keyword(self) -> None:
        assert set(CollectionSettings.__annotations__) == {*inspect.signature(Collection.open).parameters} - {"path"}

    def test_settings_reach_the_collection(self, compass: Embeddings, tmp_path: Path) -> None:
        path = tmp_path / "c.rarebit"
        store = RarebitVectorStore(compass, path=path, codec="sq8", metric="inner_product", fine="none", dim=2)
        with store.collection as collection:
            settings = collection.settings
            assert collection.path == path
            assert (settings.codec, settings.metric, settings.fine, settings.dim) == ("sq8", "inner_product", "none", 2)

    def test_a_codec_is_chosen_for_a_target(self, tmp_path: Path) -> None:
        embeddings = DeterministicFakeEmbedding(size=32)
        texts = [f"text {number}" for number in range(400)]
        settings: dict[str, Any] = {"path": tmp_path / "c.rarebit", "target_recall": 0.95}
        store = RarebitVectorStore.from_texts(texts, embeddings, training_minimum=300, **settings)
        choice = store.collection.stats().choice
        assert choice is not None
        assert choice["chosen"]["recall"] >= 0.95
        assert store.similarity_search("text 17", k=1)[0].page_content == "text 17"
        store.collection.close()
        again = RarebitVectorStore(embeddings, **settings)
        assert again.collection.stats().choice == choice
        assert again.similarity_search("text 18", k=1)[0].page_content == "text 18"

    def test_an_open_collection_is_used_as_it_is(self, compass: Embeddings) -> None:
        with Collection.open() as collection:
            store = RarebitVectorStore(compass, collection=collection)
            store.add_texts(["east"])
            assert collection.count() == 1
            assert store.collection is collection

    @pytest.mark.parametrize("other", [{"path": "c.rarebit"}, {"codec": "sq8"}, {"read_only": False}])
    def test_an_open_collection_and_settings_contradict(self, compass: Embeddings, other: dict[str, Any]) -> None:
        with Collection.open() as collection, pytest.raises(errors.InputError, match=next(iter(other))):
            RarebitVectorStore(compass, collection=collection, **other)

    def test_another_model_is_refused(self, compass: Any, tmp_path: Path) -> None:
        path = tmp_path / "c.rarebit"
        RarebitVectorStore(type(compass)("model-a"), path=path).collection.close()
        with pytest.raises(errors.FingerprintError, match="model-b"):
            RarebitVectorStore(type(compass)("model-b"), path=path)
        RarebitVectorStore(type(compass)("/models/model-a"), path=path).collection.close()
        RarebitVectorStore(compass, path=path).collection.close()  # unknown agrees

    def test_a_given_fingerprint_goes_before_the_models_name(self, compass: Any, tmp_path: Path) -> None:
        path = tmp_path / "c.rarebit"
        given = EmbeddingFingerprint("model-a", revision="2")
        with RarebitVectorStore(type(compass)("alias"), path=path, fingerprint=given).collection as collection:
            assert collection.settings.fingerprint == given

    def test_embeddings_are_the_model(self, compass: Embeddings, store: RarebitVectorStore) -> None:
        assert store.embeddings is compass


class TestAdding:
    def test_ids_are_honoured_filled_and_answered_in_order(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass)
        documents = [Document("east", id="e"), Document("north"), Document("west", id="")]  # an empty id is an id
        ids = store.add_documents(documents)
        assert (ids[0], ids[2], len({*ids})) == ("e", "", 3)
        assert [document.page_content for document in store.get_by_ids(ids)] == ["east", "north", "west"]

    def test_given_ids_go_before_the_documents_own(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass)
        assert store.add_documents([Document("east", id="e")], ids=["x"]) == ["x"]
        assert store.get_by_ids(["e"]) == []
        assert store.add_documents([Document("east", id="e")], ids=None) == ["e"]

    def test_the_same_id_overwrites(self, store: RarebitVectorStore) -> None:
        store.add_texts(["north"], [{"new": True}], ids=["east"])
        assert store.get_by_ids(["east"]) == [Document("north", id="east", metadata={"new": True})]
        assert len(store.collection) == 6

    def test_inputs_are_not_changed(self, compass: Embeddings) -> None:
        documents = [Document("east", metadata={"a": [1]}), Document("north", id="n")]
        texts, metadatas, ids = ["west"], [{"b": {"c": 1}}], ["w"]
        before = copy.deepcopy((documents, texts, metadatas, ids))
        store = RarebitVectorStore(compass, score_key="score")
        store.add_documents(documents)
        store.add_texts(texts, metadatas, ids=ids)
        found = store.similarity_search("east", k=3)
        for document in found:
            document.metadata["mine"] = True
        assert (documents, texts, metadatas, ids) == before
        assert all("mine" not in document.metadata for document in store.similarity_search("east", k=3))

    async def test_generators_are_read(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass)
        assert len(store.add_texts(text for text in ("east", "west"))) == 2
        assert len(store.add_documents(Document(text) for text in ("east", "west"))) == 2
        assert len(await store.aadd_documents(Document(text, id=text) for text in ("east", "west"))) == 2
        assert len(store.collection) == 6

    def test_nothing_is_added_without_asking_the_model(self, compass: Any) -> None:
        assert RarebitVectorStore(compass).add_texts([]) == []
        assert compass.batches == []

    @pytest.mark.unchecked
    def test_one_text_is_no_list_of_texts(self, compass: Embeddings) -> None:
        with pytest.raises(errors.InputError, match="put it into a list"):
            RarebitVectorStore(compass).add_texts("east")

    @pytest.mark.parametrize("wrong", [{"metadatas": [{}]}, {"ids": ["a", "b", "c"]}])
    def test_counts_must_agree_before_anything_is_embedded(self, compass: Any, wrong: dict[str, Any]) -> None:
        with pytest.raises(errors.InputError, match=next(iter(wrong))):
            RarebitVectorStore(compass).add_texts(["east", "west"], **wrong)
        assert compass.batches == []

    @pytest.mark.parametrize("asked", [{}, {"batch_size": 2}])
    def test_texts_are_embedded_in_batches(self, compass: Any, asked: dict[str, Any]) -> None:
        store = RarebitVectorStore(compass, batch_size=4)
        store.add_texts(["east", "north", "west", "south", "east"], **asked)
        assert compass.batches == ([2, 2, 1] if asked else [4, 1])
        assert store.similarity_search("south", k=1)[0].page_content == "south"

    def test_a_batch_size_of_nothing_is_refused(self, compass: Embeddings) -> None:
        with pytest.raises(errors.InputError, match="batch_size=0"):
            RarebitVectorStore(compass, batch_size=0).add_texts(["east"])

    def test_progress_is_shown_on_request(self, compass: Embeddings, capsys: pytest.CaptureFixture[str]) -> None:
        store = RarebitVectorStore(compass)
        store.add_texts(["east"])
        assert "embedding" not in capsys.readouterr().err
        store.add_texts(["east"], progress=True)
        assert "embedding" in capsys.readouterr().err

    def test_a_call_is_kept_whole_or_not_at_all(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass)
        with pytest.raises(errors.MetadataError):
            store.add_texts(["east", "west"], [{}, {"set": {1}}])
        assert len(store.collection) == 0

    def test_a_model_of_another_dimension_is_found_out_after_one_batch(self) -> None:
        class Other(Embeddings):
            asked = 0

            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                self.asked += 1
                return [[1.0, 2.0, 3.0] for _ in texts]

            def embed_query(self, text: str) -> list[float]:
                return [float(len(text)), 2.0, 3.0]

        other = Other()
        with pytest.raises(errors.DimensionError):
            RarebitVectorStore(other, dim=2, batch_size=1).add_texts(["a", "b", "c"])
        assert other.asked == 1

    def test_a_model_of_several_dimensions_is_refused(self) -> None:
        class Uneven(Embeddings):
            def embed_documents(self, texts: list[str]) -> list[list[float]]:
                return [[1.0] * len(text) for text in texts]

            def embed_query(self, text: str) -> list[float]:
                return [1.0] * len(text)

        with pytest.raises(errors.DimensionError, match=r"\[1, 2\]"):
            RarebitVectorStore(Uneven(), batch_size=1).add_texts(["a", "bb"])


class TestIdsFromContent:
    def test_a_second_run_changes_nothing(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass, ids_from_content=True)
        documents = [Document("east", metadata={"a": 1, "b": 2}), Document("west")]
        first = store.add_documents(documents)
        again = store.add_documents([Document("west"), Document("east", metadata={"b": 2, "a": 1})])
        assert again == first[::-1]
        assert len(store.collection) == 2

    def test_text_and_metadata_both_count(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass, ids_from_content=True)
        ids = store.add_texts(["east", "east", "west"], [{"a": 1}, {"a": 2}, {"a": 1}])
        assert len({*ids}) == 3
        assert all(len(key) == 64 and int(key, 16) >= 0 for key in ids)

    def test_duplicates_in_one_call_are_one_document(self, compass: Any) -> None:
        store = RarebitVectorStore(compass, ids_from_content=True)
        ids = store.add_texts(["east", "west", "east"])
        assert ids[0] == ids[2] != ids[1]
        assert len(store.collection) == 2
        assert compass.batches == [2]

    def test_given_ids_stand_and_never_swallow_other_content(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass, ids_from_content=True)
        assert store.add_texts(["east", "east"], ids=["x", "x"]) == ["x", "x"]
        with pytest.raises(errors.DuplicateIdError):
            store.add_texts(["east", "west"], ids=["x", "x"])

    def test_metadata_that_is_no_json_is_refused(self, compass: Embeddings) -> None:
        with pytest.raises(errors.MetadataError):
            RarebitVectorStore(compass, ids_from_content=True).add_texts(["east"], [{"set": {1}}])


class TestReadingAndDeleting:
    def test_get_by_ids_keeps_the_order_and_leaves_out_the_missing(self, store: RarebitVectorStore) -> None:
        assert ids_of(store.get_by_ids(["west", "nowhere", "east"])) == ["west", "east"]
        assert store.get_by_ids([]) == []

    def test_delete_needs_to_be_told_what(self, store: RarebitVectorStore) -> None:
        for nothing in ({}, {"ids": None}, {"filter": {}}, {"filter": None}):
            with pytest.raises(errors.InputError, match="delete_all=True"):
                store.delete(**nothing)
        assert len(store.collection) == 6

    def test_delete_all_stands_alone(self, store: RarebitVectorStore) -> None:
        for much in ({"ids": ["east"]}, {"ids": []}, {"filter": {"place": 1}}):
            with pytest.raises(errors.InputError, match="together"):
                store.delete(delete_all=True, **much)
        assert store.delete(delete_all=True) is True
        assert len(store.collection) == 0

    def test_delete_refuses_what_it_does_not_know(self, store: RarebitVectorStore) -> None:
        with pytest.raises(errors.InputError, match="filters"):
            store.delete(["east"], filters={"place": 100})
        assert len(store.collection) == 6

    def test_delete_by_ids_filter_and_both(self, store: RarebitVectorStore) -> None:
        assert store.delete(["east", "nowhere"]) is True
        assert store.delete([]) is True
        assert len(store.collection) == 5
        assert store.delete(["north", "west"], filter={"place": {"$lt": 4}}) is True
        assert store.get_by_ids(["north"]) == []
        assert store.delete(filter=lambda document: document.page_content == "south") is True
        assert {row.id for row in store.collection} == {"east by north", "north-east", "west"}


class TestSearch:
    def test_scores_are_cosines_best_first(self, store: RarebitVectorStore) -> None:
        found = store.similarity_search_with_score("east", k=6)
        assert ids_of([document for document, _ in found])[:3] == ["east", "east by north", "north-east"]
        assert [score for _, score in found] == pytest.approx([1, 0.96, 0.6, 0, 0, -1], abs=1e-5)
        assert all(type(score) is float for _, score in found)

    def test_every_form_of_search_agrees(self, store: RarebitVectorStore) -> None:
        scored = store.similarity_search_with_score("north", k=3)
        plain = [document for document, _ in scored]
        assert store.similarity_search("north", k=3) == plain
        assert store.similarity_search_by_vector([0.0, 2.0], k=3) == plain
        assert store.similarity_search_with_score_by_vector([0.0, 2.0], k=3) == scored
        assert store.search("north", "similarity", k=3) == plain
        assert len(store.similarity_search("north")) == 4

    def test_relevance_lies_in_its_range_and_keeps_the_order(self, store: RarebitVectorStore) -> None:
        relevances = [relevance for _, relevance in store.similarity_search_with_relevance_scores("east", k=6)]
        assert relevances == pytest.approx([1, 0.96, 0.6, 0, 0, 0], abs=1e-5)
        assert all(0 <= relevance <= 1 for relevance in relevances)

    def test_the_threshold_is_inclusive(self, store: RarebitVectorStore) -> None:
        exact = store.similarity_search_with_relevance_scores("east", k=3)[2][1]
        kept = store.similarity_search_with_relevance_scores("east", k=6, score_threshold=exact)
        assert ids_of([document for document, _ in kept]) == ["east", "east by north", "north-east"]
        above = math.nextafter(exact, 2)
        assert len(store.similarity_search_with_relevance_scores("east", k=6, score_threshold=above)) == 2
        assert store.search("east", "similarity_score_threshold", k=6, score_threshold=exact) == [pair[0] for pair in kept]

    def test_relevance_of_inner_products_is_bounded(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass, metric="inner_product")
        store.collection.add([[900.0, 0.0], [2.0, 0.0], [0.0, 1.0], [-900.0, 0.0]], ids=["far", "near", "across", "away"])
        found = store.similarity_search_with_relevance_scores("east")
        assert ids_of([document for document, _ in found]) == ["far", "near", "across", "away"]
        assert [relevance for _, relevance in found] == pytest.approx([1, 1 / (1 + math.exp(-2)), 0.5, 0], abs=1e-3)

    def test_the_users_relevance_goes_first(self, compass: Embeddings, store: RarebitVectorStore) -> None:
        halved = RarebitVectorStore(compass, collection=store.collection, relevance_score_fn=lambda score: (1 + score) / 2)
        found = halved.similarity_search_with_relevance_scores("east", k=6)
        assert [relevance for _, relevance in found] == pytest.approx([1, 0.98, 0.8, 0.5, 0.5, 0], abs=1e-5)

    def test_score_key_puts_the_score_on_the_document(self, compass: Embeddings, store: RarebitVectorStore) -> None:
        scoring = RarebitVectorStore(compass, collection=store.collection, score_key="score")
        for document, score in scoring.similarity_search_with_score("east"):
            assert document.metadata["score"] == score
        assert "score" in scoring.max_marginal_relevance_search("east")[0].metadata
        assert "score" in scoring.hybrid_search("east")[0].metadata
        assert all("score" not in document.metadata for document in store.similarity_search("east"))
        assert "score" not in scoring.get_by_ids(["east"])[0].metadata

    def test_mmr_at_both_ends(self, store: RarebitVectorStore) -> None:
        relevant = store.max_marginal_relevance_search("east", k=3, fetch_k=6, lambda_mult=1.0)
        assert relevant == store.similarity_search("east", k=3)
        diverse = store.max_marginal_relevance_search("east", k=2, fetch_k=6, lambda_mult=0.0)
        assert ids_of(diverse) == ["east", "west"]
        assert store.max_marginal_relevance_search_by_vector([1.0, 0.0], k=2, fetch_k=6, lambda_mult=0.0) == diverse
        assert ids_of(store.max_marginal_relevance_search("east", k=2, fetch_k=2, lambda_mult=0.0)) == ["east", "east by north"]

    def test_filters_run_before_the_search(self, store: RarebitVectorStore) -> None:
        only = {"place": 4}
        assert ids_of(store.similarity_search("east", k=1, filter=only)) == ["west"]
        assert ids_of(store.similarity_search("east", 1, only, fetch_k=1)) == ["west"]
        assert ids_of(store.max_marginal_relevance_search("east", k=1, fetch_k=1, filter=only)) == ["west"]
        assert ids_of(store.hybrid_search("east", k=1, filter=only)) == ["west"]
        assert ids_of(store.lexical_search("east", filter={"place": 1})) == ["east by north"]
        assert store.lexical_search("east", filter=only) == []

    @pytest.mark.parametrize("search", ["similarity", "mmr", "similarity_score_threshold"])
    def test_a_misspelt_filter_is_refused(self, store: RarebitVectorStore, search: str) -> None:
        with pytest.raises(errors.InputError, match="filters"):
            store.search("east", search, filters={"place": 4})

    def test_a_threshold_on_plain_search_is_refused_with_advice(self, store: RarebitVectorStore) -> None:
        with pytest.raises(errors.InputError, match="similarity_score_threshold"):
            store.similarity_search("east", score_threshold=0.5)

    def test_hybrid_between_words_and_meaning(self, store: RarebitVectorStore) -> None:
        store.add_texts(["a word: quixotic"], ids=["word"])  # its vector points to the north-east
        query = "quixotic"
        assert ids_of(store.lexical_search(query)) == ["word"]
        assert store.search(query, "lexical") == store.lexical_search(query)
        assert ids_of(store.hybrid_search("north west", k=1, alpha=0.0)) == ["west"]
        assert ids_of(store.hybrid_search("north west", k=1, alpha=1.0)) == ["word"]
        assert store.hybrid_search("west", k=1)[0].id == "west"
        assert store.search("west", "hybrid", k=2, alpha=1.0) == store.similarity_search("west", k=2)
        assert store.hybrid_search("west", k=2, alpha=1.0, fusion="weighted") == store.similarity_search("west", k=2)

    def test_reciprocal_ranks_have_no_weights(self, store: RarebitVectorStore) -> None:
        with pytest.raises(errors.InputError, match="alpha"):
            store.hybrid_search("west", alpha=0.3, fusion="rrf")

    def test_an_unknown_search_type_is_named(self, store: RarebitVectorStore) -> None:
        with pytest.raises(errors.InputError, match="hybrid"):
            store.search("east", "nearest")

    def test_an_empty_store_finds_nothing(self, compass: Embeddings) -> None:
        store = RarebitVectorStore(compass)
        for search in ("similarity", "mmr", "hybrid", "lexical"):
            assert store.search("east", search) == []
        assert store.similarity_search_with_relevance_scores("east") == []


class TestAsync:
    async def test_the_twins_agree(self, compass: Any, store: RarebitVectorStore) -> None:
        vector = [0.6, 0.8]
        assert await store.asimilarity_search("north", k=3) == store.similarity_search("north", k=3)
        assert await store.asimilarity_search_with_score("north") == store.similarity_search_with_score("north")
        assert await store.asimilarity_search_by_vector(vector) == store.similarity_search_by_vector(vector)
        assert await store.asimilarity_search_with_score_by_vector(
            vector, filter={"place": 1}
        ) == store.similarity_search_with_score_by_vector(vector, filter={"place": 1})
        assert await store.asimilarity_search_with_relevance_scores(
            "east", k=6, score_threshold=0.5
        ) == store.similarity_search_with_relevance_scores("east", k=6, score_threshold=0.5)
        assert await store.amax_marginal_relevance_search(
            "east", k=2, fetch_k=6, lambda_mult=0.0
        ) == store.max_marginal_relevance_search("east", k=2, fetch_k=6, lambda_mult=0.0)
        assert await store.amax_marginal_relevance_search_by_vector(
            vector, k=2
        ) == store.max_marginal_relevance_search_by_vector(vector, k=2)
        assert await store.ahybrid_search("east", alpha=0.7) == store.hybrid_search("east", alpha=0.7)
        assert await store.alexical_search("east") == store.lexical_search("east")
        for search in ("similarity", "mmr", "hybrid", "lexical"):
            assert await store.asearch("west", search, k=2) == store.search("west", search, k=2)
        assert await store.aget_by_ids(["west", "east"]) == store.get_by_ids(["west", "east"])

    async def test_the_models_own_methods_are_awaited(self, compass: Any) -> None:
        store = await RarebitVectorStore.afrom_texts(["east", "west"], compass, ids=["e", "w"])
        assert await store.aadd_documents([Document("north", id="n"), Document("south")], batch_size=1) != []
        assert compass.awaited == 3
        await store.asimilarity_search("east")
        await store.amax_marginal_relevance_search("north")
        await store.ahybrid_search("west")
        assert compass.awaited == 6
        await store.asimilarity_search("north")
        assert compass.awaited == 6, "the questions asked last are not embedded again"
        assert await store.adelete(["e"]) is True
        assert await store.adelete(filter={"x": {"$exists": False}}) is True
        assert len(store.collection) == 0
        with pytest.raises(errors.InputError):
            await store.adelete()
        with pytest.raises(errors.InputError):
            await store.asearch("east", "nearest")


class TestFactories:
    def test_from_texts_writes_a_file(self, compass: Embeddings, tmp_path: Path) -> None:
        path = tmp_path / "c.rarebit"
        made = RarebitVectorStore.from_texts(["east", "west"], compass, [{"a": 1}, {"a": 2}], ids=["e", "w"], path=path)
        made.collection.close()
        with RarebitVectorStore(compass, path=path, read_only=True).collection as collection:
            assert [(row.id, row.text, row.metadata) for row in collection] == [
                ("e", "east", {"a": 1}),
                ("w", "west", {"a": 2}),
            ]

    async def test_from_documents_keeps_what_ids_there_are(self, compass: Embeddings) -> None:
        documents = [Document("east", id="e", metadata={"a": 1}), Document("west")]
        for store in (
            RarebitVectorStore.from_documents(documents, compass, score_key="score"),
            await RarebitVectorStore.afrom_documents(documents, compass, score_key="score"),
        ):
            assert store.get_by_ids(["e"]) == documents[:1]
            assert len(store.collection) == 2
            assert all(document.id and "score" in document.metadata for document in store.similarity_search("east"))


class TestSavingLocally:
    def test_a_round_trip(self, compass: Embeddings, store: RarebitVectorStore, tmp_path: Path) -> None:
        folder = tmp_path / "deep" / "folder"
        store.save_local(str(folder))
        loaded = RarebitVectorStore.load_local(str(folder), compass, allow_dangerous_deserialization=True)
        with loaded.collection:
            assert (folder / "index.rarebit").exists()
            assert loaded.similarity_search_with_score("north", k=6) == store.similarity_search_with_score("north", k=6)

    def test_saving_again_replaces_the_copy(self, compass: Embeddings, store: RarebitVectorStore, tmp_path: Path) -> None:
        store.save_local(tmp_path, "compass")
        store.delete(["east"])
        store.save_local(tmp_path, "compass")
        with RarebitVectorStore.load_local(tmp_path, compass, "compass", read_only=True).collection as collection:
            assert collection.count() == 5

    def test_a_store_is_saved_in_its_own_file_already(self, compass: Embeddings, tmp_path: Path) -> None:
        store = RarebitVectorStore.from_texts(["east"], compass, path=tmp_path / "index.rarebit")
        with store.collection:
            store.save_local(tmp_path)
            store.add_texts(["west"])
            store.save_local(tmp_path)
        with RarebitVectorStore.load_local(tmp_path, compass).collection as collection:
            assert collection.count() == 2

    def test_what_was_never_saved_is_not_created(self, compass: Embeddings, tmp_path: Path) -> None:
        with pytest.raises(errors.CollectionNotFoundError, match=r"no file at .*index.rarebit"):
            RarebitVectorStore.load_local(tmp_path, compass)
        assert list(tmp_path.iterdir()) == []

    def test_a_loaded_store_takes_writes_and_settings(
        self, compass: Embeddings, store: RarebitVectorStore, tmp_path: Path
    ) -> None:
        store.save_local(tmp_path)
        loaded = RarebitVectorStore.load_local(tmp_path, compass, score_key="score")
        with loaded.collection:
            loaded.add_texts(["east"], ids=["more"])
            assert "score" in loaded.similarity_search("east")[0].metadata
        with RarebitVectorStore.load_local(tmp_path, compass).collection as collection:
            assert "more" in collection


@pytest.mark.parametrize("kind", ["memory", "file", "loaded"])
def test_sixteen_threads(compass: Embeddings, tmp_path: Path, kind: str) -> None:
    path = None if kind == "memory" else tmp_path / "index.rarebit"
    store = RarebitVectorStore.from_texts(["east"], compass, ids=["anchor"], path=path)
    if kind == "loaded":
        store.save_local(tmp_path / "copy")
        store.collection.close()
        store = RarebitVectorStore.load_local(tmp_path / "copy", compass)

    def work(worker: int) -> None:
        for turn in range(5):
            key = f"{worker}-{turn}"
            store.add_texts(["north"], [{"worker": worker}], ids=[key])
            assert ids_of(store.similarity_search("east", k=1)) == ["anchor"]
            assert ids_of(store.similarity_search("east", k=9, filter={"worker": worker})) == [key]
            store.delete([key])

    with store.collection, ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
        assert [row.id for row in store.collection] == ["anchor"]
