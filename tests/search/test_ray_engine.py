"""The engine of a cluster: as every engine, on a local Ray whose workers are lost now and then."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from starc.grammar.errors import StarError
from starc.search.engine import Engine
from starc.search.evaluators import Static
from starc.search.ray_engine import RayEngine
from tests.search.engine_conformance import *  # noqa: F403
from tests.search.engine_conformance import EVALUATORS, gather, job

ray = pytest.importorskip("ray", reason="the extra 'cluster' is not installed")

# Ray itself leaves files and sockets to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Ray as the engine starts it; engines that come while it is there share it."""
    before = signal.getsignal(signal.SIGTERM)
    first = RayEngine(2)
    assert signal.getsignal(signal.SIGTERM) is before  # which Ray would take for itself
    yield
    assert ray.is_initialized()
    first.close()
    assert not ray.is_initialized()


@pytest.fixture
def engine(cluster: None) -> Iterator[Engine]:
    engine = RayEngine(2)
    yield engine
    engine.close()


@pytest.fixture
def evaluators(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "evaluators_of_tests.py").write_text(EVALUATORS)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def parent(worker: str) -> int:
    """The process of the slot that a worker belongs to."""
    status = Path(f"/proc/{worker.rpartition(':')[2]}/stat").read_text()
    return int(status.rpartition(")")[2].split()[1])


def test_jobs_of_a_slot_that_is_killed_are_carried_out_by_another(engine: Engine, tmp_path: Path):
    engine.submit(job("before", Static(), tmp_path))
    lost = parent(gather(engine, 1)["before"].worker)
    for n in range(6):
        engine.submit(job(str(n), Static(0.4), tmp_path))
    engine.wait(0.2)
    os.kill(lost, signal.SIGKILL)
    found = gather(engine, 6)
    assert {outcome.status for outcome in found.values()} == {"done"}
    assert len({outcome.worker for outcome in found.values()}) >= 2


def test_a_job_that_is_lost_too_often_is_a_crash(cluster: None, tmp_path: Path):
    engine = RayEngine(1, retries=0)
    try:
        engine.submit(job("before", Static(), tmp_path))
        lost = parent(gather(engine, 1)["before"].worker)
        engine.submit(job("lost", Static(100.0), tmp_path))
        engine.wait(0.5)
        os.kill(lost, signal.SIGKILL)
        outcome = gather(engine, 1)["lost"]
        assert outcome.status == "crash"
        assert outcome.reason.startswith("its slot in the cluster was lost")
        engine.submit(job("after", Static(), tmp_path))
        assert gather(engine, 1)["after"].status == "done"
    finally:
        engine.close()


def test_fractions_of_processors_make_room(cluster: None):
    engine = RayEngine(cpus=0.5)
    assert engine.capacity == 4
    engine.close()
    for wrong in ({"workers": 3}, {"gpus": 1.0}, {"cpus": 64.0}):
        with pytest.raises(StarError, match="has room for") as caught:
            RayEngine(**wrong)  # type: ignore[arg-type]
        assert caught.value.diagnostics[0].code == "cluster-too-small"
