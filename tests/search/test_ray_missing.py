"""The engine of a cluster where there is no cluster, or no ray."""

from __future__ import annotations

import socket
import sys
import time

import pytest

from starc.grammar.errors import StarError
from starc.search.ray_engine import RayEngine


def code(**arguments: object) -> str:
    with pytest.raises(StarError) as caught:
        RayEngine(**arguments)  # type: ignore[arg-type]
    return caught.value.diagnostics[0].code


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert code() == "missing-extra"


def test_an_address_that_nothing_listens_at_is_said_at_once():
    pytest.importorskip("ray", reason="the extra 'cluster' is not installed")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but not listening
        port = taken.getsockname()[1]
        began = time.monotonic()
        assert code(address=f"127.0.0.1:{port}") == "cluster-unreachable"
        assert code(address=f"ray://127.0.0.1:{port}") == "cluster-unreachable"
        assert time.monotonic() - began < 5
