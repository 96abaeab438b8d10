"""`starc search --engine ray --address` on a running cluster of two machines: one is lost."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]


def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment whose token is its own."""
    folder = tmp_path_factory.mktemp("home")
    free = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**free, "HOME": str(folder), "PYTHONPATH": str(ROOT)}


def start(home: dict[str, str], *arguments: str) -> subprocess.Popen[bytes]:
    """A machine of the cluster with one processor, as a process group that dies as one."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--num-cpus=1"),
            *("--disable-usage-stats", "--block", *arguments),
        ],
        env={**home, "RAY_AUTH_MODE": "token"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def end(machine: subprocess.Popen[bytes]) -> None:
    """The power is cut: all processes of the machine at once, whatever their session."""
    found = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(map(int, line.split())) for line in found.splitlines()]
    lost = {machine.pid}
    for _ in range(8):
        lost |= {child for child, parent in pairs if parent in lost}
    for process in lost:
        try:
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
    machine.wait(10)


@pytest.fixture(scope="module")
def cluster(
    home: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Two machines; the address, and the one that may be lost."""
    token = Path(home["HOME"], ".ray", "auth_token")
    token.parent.mkdir()
    token.write_text("0123456789abcdef" * 2)
    at = port()
    # Ray's sockets lie in its folder, whose path may not be long.
    with subprocess.Popen(["mktemp", "-d"], stdout=subprocess.PIPE, text=True) as made:
        folder = (made.stdout.read() if made.stdout else "").strip()
    head = start(
        home, "--head", f"--port={at}", "--include-dashboard=false", f"--temp-dir={folder}"
    )
    address = f"{_own()}:{at}"
    other: subprocess.Popen[bytes] | None = None
    try:
        _answers(at)
        other = start(home, f"--address={address}")
        time.sleep(10.0)
        assert head.poll() is None
        assert other.poll() is None
        yield address, other
    finally:
        if other is not None:
            end(other)
        end(head)


def _own() -> str:
    import ray._private.services as services

    return str(services.get_node_ip_address())


def _answers(at: int) -> None:
    until = time.monotonic() + 60.0
    while time.monotonic() < until:
        try:
            socket.create_connection((_own(), at), timeout=1.0).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("the cluster did not start")


def search(out: Path, *arguments: str) -> list[str]:
    return [
        *(str(BIN / "starc"), "search", str(ROOT / "examples/searches/tiny.star")),
        *("--out", str(out), "--objectives", "parameters,cache_bytes", "--population", "8"),
        *("--evaluator", "static,seconds=0.5", "--evaluations", "24", *arguments),
    ]


def results(out: Path) -> list[tuple[object, ...]]:
    """What was found of each program; nothing as long as there is no record."""
    try:
        with closing(sqlite3.connect(f"file:{out}/search.db?mode=ro", uri=True)) as record:
            return record.execute(
                "select program, seed, rung, status, figures from evaluations "
                "order by program, rung"
            ).fetchall()
    except sqlite3.OperationalError:
        return []


def test_without_the_token_the_cluster_says_no(
    cluster: tuple[str, subprocess.Popen[bytes]], home: dict[str, str], tmp_path: Path
):
    refused = subprocess.run(
        search(tmp_path / "run", "--engine", "ray", "--address", cluster[0]),
        env=home,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1
    assert "error[cluster-refused]" in refused.stderr
    assert "RAY_AUTH_MODE=token" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "run").exists()


def test_a_machine_lost_in_the_middle_changes_nothing(
    cluster: tuple[str, subprocess.Popen[bytes]], home: dict[str, str], tmp_path: Path
):
    address, other = cluster
    there = tmp_path / "there"
    running = subprocess.Popen(
        search(there, "--engine", "ray", "--address", address, "--workers", "2"),
        env={**home, "RAY_AUTH_MODE": "token"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        until = time.monotonic() + 90.0
        while time.monotonic() < until and len(results(there)) < 6:
            time.sleep(0.2)
        assert running.poll() is None
        end(other)
        said, _ = running.communicate(timeout=300)
    finally:
        running.kill()
    assert running.returncode == 0, said
    here = tmp_path / "here"
    subprocess.run(search(here, "--workers", "2"), env=home, check=True, capture_output=True)
    assert results(there) == results(here)
    assert {row[3] for row in results(there)} == {"done"}
