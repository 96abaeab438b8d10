"""Engines by name."""

from __future__ import annotations

import pytest

from starc.grammar.errors import StarError
from starc.search.engines import EngineRequest, make_engine


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (EngineRequest("rey"), "unknown-engine"),
        (EngineRequest("local", address="auto"), "wrong-argument"),
        (EngineRequest("local", gpus=0.5), "wrong-argument"),
        (EngineRequest("ray", cpus=0.0), "wrong-argument"),
        (EngineRequest("ray", gpus=float("nan")), "wrong-argument"),
    ],
)
def test_engines_that_there_are_not(request_: EngineRequest, code: str):
    with pytest.raises(StarError) as caught:
        make_engine(request_, None, cores=2)
    assert caught.value.diagnostics[0].code == code


def test_the_local_engine_has_a_worker_for_each_core():
    for workers, capacity in ((None, 3), (5, 5)):
        engine = make_engine(EngineRequest(), workers, cores=3)
        assert engine.capacity == capacity
        engine.close()
