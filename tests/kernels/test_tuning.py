"""STARC_TUNE=1: which tile is chosen, when it is timed, and what the disk keeps of it."""

from __future__ import annotations

import json
import math
import multiprocessing
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from triton.runtime.errors import OutOfResources

from starc.compiler.kernel_attention import FusedAttention
from starc.compiler.kernel_plan import GatedProduct
from starc.compiler.kernel_tiles import attention_tiles

PLAN = FusedAttention(
    digest="7e11a5e0",
    heads=2,
    c_heads=2,
    b_heads=2,
    v_heads=2,
    channels=64,
    v_channels=64,
    stages=(("scale", 0.125),),
    clauses=(frozenset({("causal", ()), ("band", (24,))}),),
)

TILES = {2: [(100, (128, 64, 8, 3)), (0, (64, 64, 4, 2)), (50, (64, 32, 4, 3))]}
X = SimpleNamespace(
    is_cuda=False,
    device=torch.device("cpu"),
    dtype=torch.bfloat16,
    element_size=lambda: 2,
)

Tile = tuple[int, int, int, int]


class Timer:
    """A stand-in for `milliseconds`, which keeps what it was asked."""

    def __init__(self, times: dict[Tile, float]) -> None:
        self.times = times
        self.asked: list[Tile] = []

    def __call__(self, run: Callable[..., None], tile: Tile) -> float:
        run(*tile)
        self.asked.append(tile)
        return self.times.get(tile, 1.0)


@pytest.fixture
def tuning(
    load: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[ModuleType, Timer]]:
    """`tuning(times, name)`: a generated file, freshly imported, with a timer of our own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("STARC_TUNE", "1")

    def tuning(times: dict[Tile, float], name: str = "generated") -> tuple[ModuleType, Timer]:
        module = load([PLAN], name)
        timer = Timer(times)
        monkeypatch.setattr(module, "milliseconds", timer)
        monkeypatch.setattr(module, "shared_memory", lambda device: 200)
        return module, timer

    return tuning


def choice(module: ModuleType, sizes: Sequence[int] = (4, 512, 512), kernel: str = "k") -> Tile:
    found: Tile = module.tile_for(kernel, TILES, X, tuple(sizes), lambda *tile: None)
    return found


def cache_of(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "starc" / "tiles" / "cpu.json"


def test_without_the_variable_nothing_is_timed(
    load: Callable[..., ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("STARC_TUNE", raising=False)
    module = load([PLAN])
    timer = Timer({})
    monkeypatch.setattr(module, "milliseconds", timer)
    for room, tile in ((200, (128, 64, 8, 3)), (99, (64, 64, 4, 2))):
        monkeypatch.setattr(module, "shared_memory", lambda device, room=room: room)
        assert choice(module) == tile
    assert timer.asked == []
    assert not (tmp_path / "cache").exists()


def test_the_fastest_tile_is_kept_for_later_runs(
    tuning: Callable[..., tuple[ModuleType, Timer]], tmp_path: Path
) -> None:
    module, timer = tuning({(64, 32, 4, 3): 0.5})
    assert choice(module) == (64, 32, 4, 3)
    assert timer.asked == [tile for _, tile in TILES[2]]
    assert choice(module) == (64, 32, 4, 3)
    assert choice(module, (3, 400, 400)) == (64, 32, 4, 3)  # between the same powers of two
    assert len(timer.asked) == 3

    module, timer = tuning({}, "later")
    assert choice(module) == (64, 32, 4, 3)
    assert timer.asked == []
    assert choice(module, (4, 1024, 1024)) == (128, 64, 8, 3)  # equals: the default
    assert choice(module, kernel="another") == (128, 64, 8, 3)
    assert len(timer.asked) == 6
    kept = json.loads(cache_of(tmp_path).read_text())
    assert sorted(kept.values()) == [[64, 32, 4, 3], [128, 64, 8, 3], [128, 64, 8, 3]]
    assert [path.name for path in cache_of(tmp_path).parent.iterdir()] == ["cpu.json"]


def test_a_single_tile_is_not_timed(
    tuning: Callable[..., tuple[ModuleType, Timer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    module, timer = tuning({})
    monkeypatch.setattr(module, "shared_memory", lambda device: 0)
    assert choice(module) == (64, 64, 4, 2)
    assert timer.asked == []


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", "\x00\xff", '{"a": 1}', "null"])
def test_a_damaged_file_is_replaced(
    tuning: Callable[..., tuple[ModuleType, Timer]], tmp_path: Path, content: str
) -> None:
    path = cache_of(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(content.encode("latin-1"))
    module, timer = tuning({})
    assert choice(module) == (128, 64, 8, 3)
    assert len(timer.asked) == 3
    assert [128, 64, 8, 3] in json.loads(path.read_text()).values()


@pytest.mark.parametrize("kept", [[1, 2, 3, 4], "128", 7, None, [[128, 64, 8, 3]]])
def test_a_tile_that_is_none_is_timed_again(
    tuning: Callable[..., tuple[ModuleType, Timer]], tmp_path: Path, kept: Any
) -> None:
    module, _ = tuning({})
    choice(module)
    (case,) = json.loads(cache_of(tmp_path).read_text())
    cache_of(tmp_path).write_text(json.dumps({case: kept}))
    module, timer = tuning({(64, 64, 4, 2): 0.1}, "later")
    assert choice(module) == (64, 64, 4, 2)
    assert len(timer.asked) == 3


def test_a_cache_that_cannot_be_written_does_no_harm(
    tuning: Callable[..., tuple[ModuleType, Timer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", os.devnull)
    module, timer = tuning({(64, 64, 4, 2): 0.1})
    assert choice(module) == choice(module) == (64, 64, 4, 2)
    assert len(timer.asked) == 3


def test_a_tile_that_the_device_refuses_loses(
    load: Callable[..., ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = load([PLAN])

    def do_bench(function: Callable[[], None], **options: Any) -> float:
        raise OutOfResources(300, 200, "shared memory")

    monkeypatch.setattr(module.triton.testing, "do_bench", do_bench)
    assert module.milliseconds(lambda *tile: None, (64, 64, 4, 2)) == math.inf


def write(path: str, name: str, start: Any, text: str) -> None:
    """One of several processes: adds choices, and reads the file whole every time."""
    namespace: dict[str, Any] = {"json": json, "os": os, "Tensor": torch.Tensor, "torch": torch}
    exec(text, namespace)
    start.wait()
    for i in range(40):
        namespace["keep_tile"](path, f"{name} {i}", (i, 64, 4, 2))
        found = json.loads(Path(path).read_text())
        assert all(len(tile) == 4 for tile in found.values())


def test_several_processes_write_at_once(tmp_path: Path) -> None:
    from starc.templates import render

    path, text = tmp_path / "tiles" / "cpu.json", render("kernel/tuning.py.j2")
    context = multiprocessing.get_context("fork")
    start = context.Event()
    writers = [context.Process(target=write, args=(str(path), name, start, text)) for name in "abc"]
    for writer in writers:
        writer.start()
    start.set()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    kept = json.loads(path.read_text())
    assert all(kept[key] == [int(key.split()[1]), 64, 4, 2] for key in kept)
    assert {key.split()[1] for key in kept} >= {"39"}
    assert [own.name for own in path.parent.iterdir()] == ["cpu.json"]


def test_only_files_with_tiles_to_choose_hold_it(load: Callable[..., ModuleType]) -> None:
    assert hasattr(load([PLAN]), "tile_for")
    other = GatedProduct(digest="7e11a5e1", activation="silu", channels=64)
    assert not hasattr(load([other], "other"), "tile_for")


@pytest.mark.parametrize("size", [2, 4])
@pytest.mark.parametrize("depth", [16, 64, 128, 256])
@pytest.mark.parametrize("kernel", ["forward", "queries", "keys"])
def test_few_tiles_are_tried(kernel: str, depth: int, size: int) -> None:
    for grouped in (False, True):
        tiles = attention_tiles(kernel, depth, size, grouped)
        assert 2 <= len(tiles) <= 6
        assert len({tile for _, tile in tiles}) == len(tiles)
        assert any(room == 0 for room, _ in tiles)


@pytest.mark.kernels
def test_every_tile_computes_the_same(run_script: Callable[..., Any], tmp_path: Path) -> None:
    """In the interpreter: each tile is launched, and the last of them seems the fastest."""
    grouped = replace(PLAN, b_heads=1, v_heads=1, variant=2)
    rest = ("interpreted", "150", "float32,bfloat16", "")
    environment = {"STARC_TUNE": "1", "XDG_CACHE_HOME": str(tmp_path)}
    environment["TRITON_INTERPRET"] = "1"
    done = run_script("attention_numerics.py", [PLAN, grouped], *rest, **environment)
    assert done["findings"] == []
    kept = json.loads((tmp_path / "starc" / "tiles" / "cpu.json").read_text())
    assert len(kept) == 12  # three kernels of two plans in two types
