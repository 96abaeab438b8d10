"""Families of one program at several sizes, for the coordinate check.

Owns: making their models. Refuses: measuring (runtime/coordinates.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn

from starc.compiler.driver import compile_program
from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.grammar.source import Source
from starc.runtime.loader import load
from starc.runtime.optim import units_passed

WIDTHS = (32, 64, 128, 256)
REPEATS = (1, 2, 4)
DEPTH_WIDTH = 64
"""The width of models of several depths."""

VOCAB = CONTEXT = 64

Family = dict[int, Callable[[], nn.Module]]
"""What makes a model, by its size."""


def by_width(source: Source, widths: Sequence[int] = WIDTHS) -> Family:
    """Models of a program, every repeat gone through once, by width. Raises StarError."""
    return {width: _model(source, width, 1) for width in widths}


def by_depth(source: Source, repeats: Sequence[int] = REPEATS) -> Family:
    """Models of a program of width 64, by the number of units that a token passes: its outermost
    repeats are gone through 1, 2, ... times. Raises StarError."""
    made = [_model(source, DEPTH_WIDTH, repeat) for repeat in repeats]
    return {units_passed(make()): make for make in made}


def _model(source: Source, width: int, repeat: int) -> Callable[[], nn.Module]:
    sized = resize(source, Options(), width=width, repeat=repeat, vocab=VOCAB, context=CONTEXT)
    make: Callable[[], nn.Module] = load(compile_program(sized, Options(format=False)).text).Model
    return make
