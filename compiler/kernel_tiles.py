"""Tiles of kernels with matrix products: a small table, and what to try beside it.

Owns: the table and the shared memory that each of its rows needs. Refuses: kernels, and choosing
among tiles by time, which generated files do (templates/kernel/tuning.py.j2).
"""

from __future__ import annotations

from dataclasses import dataclass

LANES_OF_STRIDE = 128
"""From this stride on, blocks of keys between those that are seen are skipped: the longest tile."""


@dataclass(frozen=True)
class AttentionTile:
    """`rows` queries by `columns` keys, run by `warps` warps, loads `stages` deep in flight."""

    rows: int
    columns: int
    warps: int
    stages: int

    @property
    def text(self) -> str:
        return f"({self.rows}, {self.columns}, {self.warps}, {self.stages})"


LARGE = 160 * 1024
"""Shared memory of one program on sm_80, sm_90 and sm_100, in bytes, or a little less."""

LARGEST = 200 * 1024
"""The same on sm_90 and sm_100, or a little less."""

_Tile = AttentionTile
_ATTENTION: dict[tuple[int, int], dict[str, tuple[AttentionTile, AttentionTile]]] = {
    # (bytes of an element, channels of a head): kernel: tiles with LARGE shared memory, with less
    (2, 64): {
        "forward": (_Tile(128, 64, 8, 3), _Tile(64, 64, 4, 2)),
        "queries": (_Tile(128, 64, 8, 3), _Tile(64, 64, 4, 2)),
        "keys": (_Tile(64, 64, 8, 2), _Tile(32, 64, 4, 1)),
    },
    (2, 128): {
        "forward": (_Tile(128, 64, 8, 2), _Tile(64, 32, 4, 2)),
        "queries": (_Tile(64, 64, 8, 2), _Tile(64, 32, 4, 1)),
        "keys": (_Tile(64, 64, 8, 2), _Tile(32, 32, 4, 1)),
    },
    (2, 256): {
        "forward": (_Tile(64, 32, 8, 2), _Tile(64, 32, 8, 1)),
        "queries": (_Tile(64, 32, 8, 2), _Tile(32, 32, 8, 1)),
        "keys": (_Tile(32, 64, 8, 2), _Tile(16, 32, 8, 1)),
    },
    (4, 64): {
        "forward": (_Tile(64, 32, 8, 2), _Tile(32, 32, 4, 1)),
        "queries": (_Tile(64, 32, 8, 2), _Tile(32, 32, 4, 1)),
        "keys": (_Tile(32, 64, 8, 2), _Tile(32, 32, 4, 1)),
    },
    (4, 128): {
        "forward": (_Tile(64, 32, 8, 2), _Tile(32, 16, 4, 1)),
        "queries": (_Tile(32, 32, 8, 1), _Tile(32, 16, 4, 1)),
        "keys": (_Tile(32, 32, 8, 1), _Tile(16, 32, 4, 1)),
    },
    (4, 256): {
        "forward": (_Tile(32, 16, 8, 1), _Tile(16, 16, 4, 1)),
        "queries": (_Tile(32, 16, 8, 1), _Tile(16, 16, 4, 1)),
        "keys": (_Tile(16, 32, 8, 1), _Tile(16, 16, 4, 1)),
    },
}
"""Found by compiling candidates for all targets: the largest tile without spills on any of them,
with instructions of four warps on sm_90 and sm_100. Tiles for 4 bytes, and those for little shared
memory beyond 64 channels, were compiled for few of them. None was timed: there was no GPU."""


_NEIGHBOURS: dict[tuple[int, int], dict[str, tuple[tuple[int, AttentionTile], ...]]] = {
    (2, 64): {
        "forward": (
            (58, _Tile(64, 64, 4, 3)),
            (41, _Tile(128, 32, 4, 3)),
            (81, _Tile(128, 128, 8, 2)),
        ),
        "queries": (
            (73, _Tile(64, 64, 4, 3)),
            (73, _Tile(64, 64, 8, 3)),
            (73, _Tile(128, 64, 8, 2)),
        ),
        "keys": ((65, _Tile(64, 64, 4, 2)), (81, _Tile(64, 128, 8, 2)), (41, _Tile(32, 64, 4, 2))),
    },
    (2, 128): {
        "forward": (
            (129, _Tile(128, 64, 8, 3)),
            (81, _Tile(64, 64, 4, 2)),
            (81, _Tile(128, 32, 8, 3)),
        ),
        "queries": ((73, _Tile(64, 32, 8, 2)), (65, _Tile(64, 64, 8, 1))),
        "keys": ((81, _Tile(32, 64, 8, 2)),),
    },
}
"""Tiles near those of the table that spill nowhere on sm_90 and sm_100 either, behind the KiB of
shared memory that they need on the greediest of sm_80, sm_90 and sm_100: candidates for timing."""


_GROUPED = {
    64: (
        (LARGEST, _Tile(64, 64, 8, 2)),
        (66 * 1024, _Tile(32, 64, 8, 1)),
        (0, _Tile(32, 32, 4, 1)),
        (41 * 1024, _Tile(32, 64, 8, 2)),
        (36 * 1024, _Tile(64, 64, 8, 1)),
    ),
    128: (
        (LARGEST, _Tile(32, 128, 8, 1)),
        (81 * 1024, _Tile(32, 64, 8, 2)),
        (0, _Tile(32, 32, 4, 1)),
        (57 * 1024, _Tile(16, 64, 8, 2)),
    ),
}
"""Tiles for gradients of keys that several query heads share, found in the same way."""


def attention_tiles(
    kernel: str, depth: int, size: int, grouped: bool = False
) -> tuple[tuple[int, AttentionTile], ...]:
    """(least shared memory in bytes, tile) for heads of up to `depth` padded channels and elements
    of `size` bytes. `kernel` is forward, queries or keys; `grouped` says that it walks over several
    query heads, which takes more registers.

    The first tile that a device has room for is the one to use where nothing is known of its speed
    there, the others are worth a try.
    """
    depth = max(depth, 64)
    large, small = _ATTENTION[size, depth][kernel]
    if grouped and size == 2 and depth <= 128:
        return _GROUPED[depth]
    near = _NEIGHBOURS.get((size, depth), {}).get(kernel, ())
    return (LARGE, large), (0, small), *((1024 * room, tile) for room, tile in near)


@dataclass(frozen=True)
class ConvolutionTile:
    """Blocks of a long convolution: `chunk` tokens of the result by `depth` of the source, with a
    filter in `copies`; `lags` of the filter's gradient, over `lag_columns` chunks at a time."""

    chunk: int
    depth: int
    copies: int
    lags: int
    lag_columns: int
    warps: int
    stages: int


CONVOLUTION_TILES = {
    # A row of a Toeplitz block begins at any tap. A filter of 2-byte elements is there twice, one
    # tap apart, so that words of 4 bytes can be copied to shared memory behind the processor's
    # back; 4-byte elements are such words themselves.
    2: ConvolutionTile(128, 64, 2, 128, 64, 8, 3),
    4: ConvolutionTile(64, 32, 1, 64, 32, 8, 2),
}
"""By bytes of an element; found like those of attention: no spills on any target."""

CONVOLUTION_COLUMNS = (32, 64)
"""Chunks, of all sequences of a filter, that one program computes: few, and many."""

LONGEST_PRODUCT = {
    "H100": {2: 7168, 4: 1024},
    "A100": {2: 4096, 4: 512},
    "RTX4090": {2: 4096, 4: 512},
    "MI300X": {2: 6144, 4: 512},
}
"""Taps up to which long convolutions are products, by device and bytes of an element; beyond, the
fast Fourier transform takes less time on paper. Per token and channel, and without gates:

    transform   76 bytes (docs/kernels.md) and arithmetic that is far less
    products    12 bytes in bfloat16, 24 in float32, and 1.25 T FLOPs, a quarter of them above the
                diagonal, at half of the peak rate; float32 goes three times at the rate of TF32,
                half of bfloat16's (AMD: once, at an eighth)

    T = (76 - bytes) / bandwidth * rate / 2 / 1.25, rounded to multiples of 1024 (512 in float32).
"""
