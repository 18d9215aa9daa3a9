"""The filter of near-duplicates where LangChain puts it."""

from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding

from rarebit.integrations.langchain import NearDuplicateFilter, RarebitVectorStore
from rarebit.retrievers.near_duplicates import unique

KETTLE = "The kettle is on the stove, and the water in it will boil in a quarter of an hour."
CAT = "The cat is out in the garden, and will not come back before the birds have gone to sleep."
DOCUMENTS = [
    Document(id="k1", page_content=KETTLE, metadata={"page": 1}),
    Document(id="c1", page_content=CAT),
    Document(id="k2", page_content=KETTLE + "..", metadata={"page": 2}),
    Document(id="blank", page_content=""),
    Document(id="k3", page_content=KETTLE.upper()),
    Document(page_content=CAT),
    Document(id="blank too", page_content=""),
]
KEPT = ["k1", "c1", "blank", "blank too"]


def ids_of(documents: Any) -> list[str | None]:
    return [document.id for document in documents]


class TestNearDuplicateFilter:
    def test_the_first_of_each_stays_in_order(self) -> None:
        dropping = NearDuplicateFilter()
        for kept in (
            dropping.compress_documents(DOCUMENTS, "tea"),
            dropping.transform_documents(DOCUMENTS),
            asyncio.run(dropping.acompress_documents(DOCUMENTS, "tea")),
            asyncio.run(dropping.atransform_documents(DOCUMENTS)),
        ):
            assert ids_of(kept) == KEPT
            assert all(any(document is given for given in DOCUMENTS) for document in kept)

    def test_nothing_stays_nothing(self) -> None:
        assert NearDuplicateFilter(record="also").compress_documents([], "tea") == []

    def test_the_threshold_decides(self) -> None:
        near = [Document(KETTLE), Document(KETTLE.replace("water", "milk"))]
        assert len(NearDuplicateFilter(threshold=0.6).transform_documents(near)) == 1
        assert len(NearDuplicateFilter(threshold=0.9).transform_documents(near)) == 2

    def test_what_was_dropped_is_recorded(self) -> None:
        before = copy.deepcopy(DOCUMENTS)
        kept = NearDuplicateFilter(record="also").transform_documents(DOCUMENTS)
        assert [document.metadata for document in kept] == [{"page": 1, "also": ["k2", "k3"]}, {"also": [None]}, {}, {}]
        assert ids_of(kept) == KEPT
        assert before == DOCUMENTS

    def test_records_go_on_through_further_filters(self) -> None:
        strict, loose = NearDuplicateFilter(threshold=0.95, record="also"), NearDuplicateFilter(threshold=0.5, record="also")
        milk = KETTLE.replace("water", "milk")
        documents = [
            Document(id="a", page_content=KETTLE),
            Document(id="b", page_content=KETTLE),
            Document(id="c", page_content=milk),
            Document(id="d", page_content=milk),
        ]
        once = strict.transform_documents(documents)
        assert [document.metadata["also"] for document in once] == [["b"], ["d"]]
        assert [document.metadata["also"] for document in loose.transform_documents(once)] == [["b", "c", "d"]]
        assert [document.metadata["also"] for document in once] == [["b"], ["d"]]

    @given(st.lists(st.sampled_from([KETTLE, KETTLE + "!", CAT, "", "tea", "Tea"]), max_size=8))
    def test_it_keeps_what_the_core_keeps(self, texts: list[str]) -> None:
        documents = [Document(id=str(place), page_content=text) for place, text in enumerate(texts)]
        kept = NearDuplicateFilter(record="also").transform_documents(documents)
        groups = {str(first): [str(later) for later in rest] for first, rest in unique(texts).items()}
        assert {str(document.id): document.metadata.get("also", []) for document in kept} == groups

    @pytest.mark.unchecked
    @pytest.mark.parametrize("wrong", [{"threshold": 0}, {"threshold": 1.5}, {"threshold": "high"}, {"treshold": 0.8}])
    def test_what_cannot_be_meant_is_refused(self, wrong: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wrong))):
            NearDuplicateFilter(**wrong)

    def test_its_settings_survive_a_round_trip(self) -> None:
        made = NearDuplicateFilter(threshold=0.9, record="also")
        assert NearDuplicateFilter.model_validate_json(made.model_dump_json()) == made

    def test_in_langchains_own_places(self) -> None:
        retrievers = pytest.importorskip("langchain_classic.retrievers")
        compressors = pytest.importorskip("langchain_classic.retrievers.document_compressors")
        store = RarebitVectorStore(DeterministicFakeEmbedding(size=8))
        store.add_documents([document for document in DOCUMENTS if document.id])
        dropping = NearDuplicateFilter(record="also")
        pipeline = compressors.DocumentCompressorPipeline(transformers=[dropping, NearDuplicateFilter(threshold=0.5)])
        retriever = store.as_retriever(search_kwargs={"k": 6})
        found = [document for document in retriever.invoke(KETTLE) if document.id in {"k1", "k2", "k3"}]
        for compressor in (dropping, pipeline):
            within = retrievers.ContextualCompressionRetriever(base_retriever=retriever, base_compressor=compressor)
            for kept in (within.invoke(KETTLE), asyncio.run(within.ainvoke(KETTLE))):
                assert sorted(map(str, ids_of(kept))) == sorted(["blank", "blank too", "c1", str(found[0].id)])
                assert next(document for document in kept if document.id == found[0].id).metadata["also"] == ids_of(found[1:])
        chain = retriever | dropping.transform_documents
        assert ids_of(chain.invoke(KETTLE)) == ids_of(asyncio.run(chain.ainvoke(KETTLE))) == ids_of(kept)
        store.collection.close()
