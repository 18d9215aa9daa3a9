"""Collections on servers, beside what the contract suite asks of them: training, tenants and agreement, the same of each."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from support.kinds import Server
from support.servers import DIM, FOUND, IDS, METADATAS, QUERIES, ROWS, TEXTS, VECTORS, recall

from rarebit import And, Collection, Compare, Not, Where
from rarebit.errors import (
    ClosedError,
    CollectionNotFoundError,
    DimensionError,
    FingerprintError,
    InputError,
    MissingRowError,
    ReadOnlyError,
    SettingsError,
)


@pytest.fixture(scope="module")
def trained(server: Server) -> Iterator[Any]:
    with server.connected(training_minimum=1000) as given:
        given.add(VECTORS, texts=TEXTS, metadatas=METADATAS, ids=IDS)
        yield given


@pytest.fixture
def collection(server: Server) -> Iterator[Any]:
    with server.connected() as given:
        yield given


class TestTraining:
    def test_enough_rows_train_codes_and_bits(self, trained: Any) -> None:
        assert trained.stats().trained
        assert trained.stats().count == ROWS
        kept = trained._engine.kept()
        assert kept.generation != 0
        assert kept.candidates >= 100

    def test_the_nearest_are_found(self, trained: Any) -> None:
        assert recall(trained, np.arange(ROWS)) >= FOUND

    def test_scores_are_the_cosines(self, trained: Any) -> None:
        for hit in trained.search(QUERIES[0], 5):
            assert hit.score == pytest.approx(float(VECTORS[int(hit.id)] @ QUERIES[0]), abs=2e-3)

    @pytest.mark.parametrize("least", [0, ROWS - 5, ROWS // 2, 10])
    def test_filters_are_answered_in_full(self, trained: Any, least: int) -> None:
        matching = np.arange(least, ROWS)
        for given in (Compare("row", "gte", least), Not(Compare("row", "lt", least))):
            assert recall(trained, matching, filter=given) >= FOUND
            assert len(trained.search(QUERIES[0], 20, filter=given)) == min(20, len(matching))
            assert trained.count(given) == len(matching)

    def test_predicates_of_python(self, trained: Any) -> None:
        found = trained.search(
            QUERIES[0], 5, filter=And(Where(lambda row: row.metadata["row"] % 7 == 0), Compare("half", "eq", 1))
        )
        assert len(found) == 5
        assert all(int(hit.id) % 7 == 0 and int(hit.id) % 2 for hit in found)

    def test_batches_answer_as_single_queries_do(self, trained: Any) -> None:
        single = [trained.search(query, 7) for query in QUERIES]
        assert trained.search_many(QUERIES, 7) == single

    def test_vectors_come_from_the_finest_tier(self, trained: Any) -> None:
        assert np.abs(trained.vectors(IDS[:50]) - VECTORS[:50]).max() < 0.01
        with pytest.raises(MissingRowError, match="'none'"):
            trained.vectors(["0", "none"])

    def test_it_means_the_same_as_an_embedded_collection(self, trained: Any) -> None:
        with Collection.open(training_minimum=1000) as embedded:
            embedded.add(VECTORS, texts=TEXTS, metadatas=METADATAS, ids=IDS)
            for query in QUERIES[:10]:
                here, there = (each.search(query, 10, candidates=ROWS) for each in (trained, embedded))
                assert [hit.id for hit in here[:3]] == [hit.id for hit in there[:3]]
                assert [hit.score for hit in here] == pytest.approx([hit.score for hit in there], abs=3e-3)

    def test_another_client_follows_a_training(self, server: Server) -> None:
        with server.connected(training_minimum=500) as writer:
            name = writer._engine.name
            with Collection.connect(server.address, name) as reader:
                writer.add(VECTORS[:400], ids=IDS[:400])
                assert reader.search(VECTORS[7], 1)[0].id == "7"
                writer.add(VECTORS[400:800], ids=IDS[400:800])
                assert writer.stats().trained
                assert reader.search(VECTORS[777], 1)[0].id == "777"
                reader.add(VECTORS[800:900], ids=IDS[800:900])
                assert writer.search(VECTORS[850], 1)[0].id == "850"

    def test_writers_that_meet_a_training(self, server: Server) -> None:
        with server.connected(training_minimum=600) as collection:
            failures: list[BaseException] = []

            def write(number: int) -> None:
                try:
                    with Collection.connect(server.address, collection._engine.name) as own:
                        for start in range(number * 300, number * 300 + 300, 50):
                            own.add(VECTORS[start : start + 50], ids=IDS[start : start + 50])
                except BaseException as error:  # noqa: BLE001 -- told below
                    failures.append(error)

            threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert not failures
            assert collection.count() == 1200
            assert collection.stats().trained
            assert np.abs(collection.vectors(IDS[:1200]) - VECTORS[:1200]).max() < 0.01
            assert recall(collection, np.arange(1200)) >= 0.95  # candidates were measured among half as many rows

    @pytest.mark.parametrize("codec", ["float32", "sq8", "trellis"])
    def test_every_kind_of_codec(self, server: Server, codec: str) -> None:
        with server.connected(codec=codec) as collection:
            for start in range(0, ROWS, 500):
                part = slice(start, start + 500)
                collection.add(VECTORS[part], ids=IDS[part])
                assert collection.search(VECTORS[start + 5], 1)[0].id == str(start + 5)
            assert collection.stats().trained
            assert recall(collection, np.arange(ROWS)) >= FOUND

    def test_training_again_keeps_rows_and_their_order(self, server: Server) -> None:
        with server.connected(training_minimum=400) as collection:
            collection.add(VECTORS[:500], texts=TEXTS[:500], ids=IDS[:500], metadatas=METADATAS[:500])
            collection.tenant("acme").add(VECTORS[:3], ids=["a", "b", "c"])
            before, numbers = list(collection.iterate()), collection._engine.numbers("")
            generation = collection._engine.kept().generation
            collection.train()
            assert collection._engine.kept().generation not in {0, generation}
            assert list(collection.iterate()) == before
            assert collection._engine.numbers("") == numbers
            assert collection.tenants() == ["acme"]
            assert collection.search(VECTORS[5], 1)[0].id == "5"

    def test_bytes_are_counted(self, trained: Any) -> None:
        assert max(trained.stats().disk.values()) > 0


class TestTenants:
    def test_each_has_its_own(self, server: Server) -> None:
        with server.connected(training_minimum=400) as collection:
            for number in range(4):
                part = slice(number * 150, number * 150 + 150)
                collection.tenant(f"tenant {number}").add(VECTORS[part], ids=IDS[:150])
            assert collection.stats().trained
            assert collection.tenants() == [f"tenant {number}" for number in range(4)]
            for number in range(4):
                assert collection.tenant(f"tenant {number}").search(VECTORS[number * 150 + 3], 1)[0].id == "3"
                assert len(collection.tenant(f"tenant {number}").search(VECTORS[0], 1000)) == 150
            assert collection.delete_tenant("tenant 3") == 150
            assert collection.stats().count == 450


class TestAgreement:
    @pytest.mark.parametrize("name", ["", "x" * 41, "a\0b"])
    def test_names_that_cannot_be(self, server: Server, name: str) -> None:
        with pytest.raises(InputError, match="name="):
            Collection.connect(server.address, name)

    def test_a_collection_that_must_exist(self, server: Server) -> None:
        for given in ({"create": False}, {"read_only": True}):
            with pytest.raises(CollectionNotFoundError, match="no collection"):
                Collection.connect(server.address, "nothing here", **given)

    def test_settings_and_models_of_another(self, server: Server) -> None:
        with server.connected(metric="inner_product", fingerprint="model-a") as collection:
            name = collection._engine.name
            with pytest.raises(SettingsError, match="metric"):
                Collection.connect(server.address, name, metric="cosine")
            with pytest.raises(FingerprintError, match="model-b"):
                Collection.connect(server.address, name, fingerprint="model-b")
            with Collection.connect(server.address, name) as same:
                assert same.settings.metric == "inner_product"

    @pytest.mark.unchecked
    def test_wrong_rows_change_nothing(self, collection: Any) -> None:
        collection.add([[1.0, 2.0]], ids=["a"])
        with pytest.raises(DimensionError):
            collection.add([[1.0, 2.0, 3.0]])
        with pytest.raises(InputError):
            collection.add(np.ones((3000, 2)), texts=["x"] * 2999 + [None], ids=[f"x{row}" for row in range(3000)])
        with pytest.raises(DimensionError):
            collection.search([1.0, 2.0, 3.0])
        assert collection.count() == 1

    def test_read_only(self, server: Server, collection: Any) -> None:
        collection.add([[1.0, 2.0]], ids=["a"])
        with Collection.connect(server.address, collection._engine.name, read_only=True, fingerprint="model") as reader:
            assert reader.search([1.0, 2.0], 1)[0].id == "a"
            for write in (lambda: reader.add([[1.0, 2.0]]), lambda: reader.delete(["a"]), reader.delete_all, reader.train):
                with pytest.raises(ReadOnlyError):
                    write()
        assert collection.settings.fingerprint.name is None

    def test_two_dimensions_at_once(self, server: Server, collection: Any) -> None:
        with Collection.connect(server.address, collection._engine.name) as other:
            collection.add([[1.0, 2.0]], ids=["a"])
            with pytest.raises(DimensionError):
                other.add([[1.0, 2.0, 3.0]], ids=["b"])
            assert other.vectors(["a"]).shape == (1, 2)
        assert collection.count() == 1

    def test_closed_and_pickled(self, collection: Any) -> None:
        collection.add([[1.0, 2.0]], ids=["a"])
        with pickle.loads(pickle.dumps(collection)) as again:
            assert again.search([1.0, 2.0], 1)[0].id == "a"
        collection.close()
        with pytest.raises(ClosedError):
            collection.count()

    def test_every_public_name_of_an_embedded_collection(self, collection: Any) -> None:
        classmethods = {"open", "load", "connect"}
        wanted = {name for name in dir(Collection) if not name.startswith("_")} - classmethods
        assert wanted <= {name for name in dir(collection) if not name.startswith("_")}

    def test_the_model_is_told_while_another_adds_the_first_rows(self, server: Server, collection: Any) -> None:
        name = collection._engine.name
        failures: list[BaseException] = []

        def tell(number: int) -> None:
            try:
                with Collection.connect(server.address, name, fingerprint="model") as other:
                    other.add(VECTORS[number : number + 1], ids=[str(number)])
            except BaseException as error:  # noqa: BLE001 -- told below
                failures.append(error)

        threads = [threading.Thread(target=tell, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures
        assert collection.settings.dim == DIM
        assert collection.settings.fingerprint.name == "model"
        assert collection.count() == 6
