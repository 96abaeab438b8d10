"""Tiles of kernels with matrix products: a small table instead of autotuning.

Owns: the table and the shared memory that each of its rows needs. Refuses: kernels.
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


def attention_tiles(
    kernel: str, depth: int, size: int, grouped: bool = False
) -> tuple[tuple[int, AttentionTile], ...]:
    """(least shared memory in bytes, tile) for heads of up to `depth` padded channels and elements
    of `size` bytes, the best first. `kernel` is forward, queries or keys; `grouped` says that it
    walks over several query heads, which takes more registers."""
    large, small = _ATTENTION[size, max(depth, 64)][kernel]
    if grouped and size == 2 and depth <= 128:
        return (LARGEST, large), (0, _Tile(32, 32, 4, 1))
    return (LARGE, large), (0, small)


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
