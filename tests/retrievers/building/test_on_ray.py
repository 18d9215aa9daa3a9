"""Builds by workers on a local Ray come to what a build in this process comes to, whoever is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray.data", reason="workers need the extra ray")

from support.building import ROWS, SHARD_ROWS, Failing, Hashed, as_lines, rows_in

from rarebit import Collection
from rarebit.errors import BuildError, InputError, MissingExtraError, VectorError
from rarebit.retrievers.building import OnRay, Recipe, SentenceEncoder, build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own

TESTS = Path(__file__).parents[2]
LONGEST = 120


@pytest.fixture(scope="module")
def ray() -> Iterator[None]:
    """One Ray for all tests: it takes seconds to start. Its workers find the tests' encoders."""
    with pytest.MonkeyPatch.context() as patch, OnRay(2) as runner:
        patch.setenv("PYTHONPATH", str(TESTS))
        runner.start()
        yield


def test_one_worker(ray: None, building: Any, built: Any) -> None:
    report, rows = building(runner=OnRay(1))
    assert (report.embedded, report.encoded) == (ROWS, ROWS)
    assert rows == built[1]
    assert report.checksum == built[0].checksum


def test_one_of_two_workers_is_killed_and_nothing_changes(ray: None, building: Any, built: Any, tmp_path: Path) -> None:
    report, rows = building(Hashed(deadly="passage 105 ", died=tmp_path / "died"), OnRay(2))
    assert (tmp_path / "died").exists()
    assert report.embedded == ROWS
    assert rows == built[1]
    assert not (tmp_path / "work" / "attempts").exists()


def test_a_shard_that_kills_every_worker_is_given_up(ray: None, building: Any, built: Any) -> None:
    with pytest.raises(BuildError, match="shard 5 ended 1 workers, wanted one that lives"):
        building(Hashed(deadly="passage 105 "), OnRay(1, tries=1))
    report, rows = building()
    assert 0 < report.embedded < ROWS
    assert rows == built[1]


def test_what_a_worker_refuses_is_said_here(ray: None, building: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'no such model' cannot be loaded"):
        building(SentenceEncoder("no such model"), OnRay(1))
    with pytest.raises(VectorError, match="no vectors for 20 texts"):
        building(Failing(), OnRay(1))


@pytest.mark.usefixtures("_one_thread")
def test_a_model_embeds_alike_here_and_in_two_workers(ray: None, folders: dict[str, Path], tmp_path: Path) -> None:
    """Texts of many lengths, so that padding matters, and codes are learned from what the model gave."""
    from support import tiny_encoders

    tiny_encoders.encoder(folders["bert"]).save(str(tmp_path / "model"))
    words = tiny_encoders.WORDS
    texts = [" ".join(words[(7 * row + each) % len(words)] for each in range(1 + row % 23)) for row in range(ROWS)]
    given = as_lines(tmp_path / "p.jsonl", ({"text": f"{text} {row}."} for row, text in enumerate(texts)))
    found = []
    for number, runner in enumerate((None, OnRay(2))):
        encoder = SentenceEncoder(str(tmp_path / "model"), batch_texts=8)
        recipe = Recipe([given], encoder, collection={"training_minimum": 200}, shard_rows=SHARD_ROWS)
        with Collection.open() as target:
            build(recipe, tmp_path / f"work {number}", target, runner=runner)
            assert target.stats().trained
            found.append(rows_in(target))
    assert found[0] == found[1]


def test_a_killed_run_is_gone_on_with_and_leaves_no_process(lines: Path, building: Any, built: Any, tmp_path: Path) -> None:
    script = TESTS / "support" / "build_until_killed.py"
    environment = {**os.environ, "PYTHONPATH": str(TESTS)}
    run = subprocess.Popen([sys.executable, script, lines, tmp_path / "work", "ray"], env=environment)
    started: list[int] = []
    try:
        wait_until(lambda: len(list((tmp_path / "work" / "vectors").glob("*.parquet"))) > 1 or run.poll() is not None)
        assert run.poll() is None
        started = below(run.pid)
        assert any("raylet" in command_of(each) for each in started)
    finally:
        run.kill()
        run.wait()
    wait_until(lambda: all("Agent" in command for each in started if (command := command_of(each))))
    for each in started:  # the two agents of a node look only once a minute whether it is there
        if "Agent" in command_of(each):
            os.kill(each, signal.SIGKILL)
    report, rows = building()
    assert 0 < report.embedded < ROWS
    assert rows == built[1]


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rarebit.extras.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"'rarebit\[ray\]'"):
        OnRay()


def wait_until(holds: Any) -> None:
    deadline = time.monotonic() + LONGEST
    while not holds():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.1)


def below(parent: int) -> list[int]:
    """Give the processes that a process has started, and those that these have."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has just ended
            continue
    found = [parent]
    for each in found:
        found += [child for child, its_parent in parents.items() if its_parent == each]
    return found[1:]


def command_of(process: int) -> str:
    """Give its command line; nothing where it has ended, if only its parent has yet to see that."""
    try:
        return Path(f"/proc/{process}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
