"""Pieces of program text that know how tightly they bind, and layouts that mean nothing.

Owns: parentheses, spellings of numbers and blank space. Refuses: types (operators.py has them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from starc.compiler.types import Type

PIPE, SUM, PRODUCT, MIX, UNARY, ATOM = range(6)
"""How tightly an expression binds, loosest first."""

KEPT_BLANK = "\x00"
"""Stands for a blank inside a string until the layout is done."""


@dataclass(frozen=True)
class Piece:
    """An expression of a known type."""

    text: str
    level: int
    type: Type

    def at(self, level: int) -> str:
        """The text where an operand must bind at least so tightly."""
        return self.text if self.level >= level else f"({self.text})"


class Draws:
    """Small choices; the first of a list is what examples shrink to."""

    def __init__(self, draw: DrawFn) -> None:
        self.draw = draw

    def pick(self, *choices: Any) -> Any:
        return self.draw(st.sampled_from(choices))

    def below(self, n: int) -> int:
        return self.draw(st.integers(0, n - 1))

    def chance(self, n: int) -> bool:
        """True once in n."""
        return self.below(n) == n - 1

    def whole(self, n: int, width: int | None = None) -> str:
        """A spelling of the whole number n; `width` is what that name means where it has one."""
        if not self.chance(4):
            return str(n)
        ways = [
            f"{2 * n} / 2",
            f"{n + 3} - 3",
            f"multiple({n}, 1)",
            f"max(1, {n})",
            f"8/3 * {3 * n} / 8",
            f"floor({n}.75)",
            f"sqrt({n * n})",
            f"{n}.0",
        ]
        if width == n:
            ways += ["width", "width", "depth * width / depth"]
        elif width and width % n == 0:
            ways.append(f"width / {width // n}")
        elif width and n % width == 0:
            ways.append(f"{n // width} * width")
        return self.pick(*ways)

    def real(self) -> str:
        """A spelling of a number of moderate size, of either sign."""
        return self.pick(
            "0.5", "2", "1 / sqrt(width)", "3/4", "-1/3", "1e-1 * 7", "exp(-1)", "1_0 / 7"
        )

    def layout(self, text: str) -> str:
        """The same program with other blanks, line ends and comments between its words."""
        blanks = {
            "plain": [" "],
            "lines": ["\n", " ", " ", " ", " "],
            "wild": [" ", "\n", "\t", "  ", "\r\n", " # ü |> } ?\n", "\n\n#x\n"],
        }[self.pick("plain", "plain", "lines", "wild")]
        step = 1 + self.below(100)
        words = text.split(" ")
        for i in range(1, len(words)):
            words[i] = blanks[step * i * i % len(blanks)] + words[i]
        return "".join(words).replace(KEPT_BLANK, " ")
