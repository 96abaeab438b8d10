"""Sequences of a random probabilistic grammar over trees, with the best possible loss known.

Owns: the grammar, its exact entropy, and the exact distribution of every next token.
Refuses: learning any of it.

A variant of the random hierarchy model (arXiv 2307.02129) with random probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from starc.runtime.data import Split
from starc.runtime.tasks.task import BLOCK, Ids, Part, Task

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Level:
    """The rules that replace each symbol of a level by `branching` symbols of the next.

    `bodies` (symbols, rules, branching) are the replacements, no two of them the same; `chances`
    (symbols, rules) their probabilities, which sum to one for each symbol.
    """

    bodies: NDArray[np.int64]
    chances: Floats


@dataclass(frozen=True, kw_only=True)
class TreeGrammar(Task):
    """The leaves of trees of a random grammar, from left to right.

    A root symbol, drawn evenly from vocab - 1, is replaced level by level: each symbol by
    `branching` symbols of the next level, after one of its `rules` rules, whose probabilities are
    drawn evenly from all there are (Dirichlet). After log(length, branching) levels the symbols are
    the sequence. Each level has rules of its own, and no two of a level have the same body, so a
    sequence has one tree. The grammar is the same in all sets. The model sees the id vocab - 1 and
    all of the sequence but its last id; every id is a target, in all sets.
    """

    vocab: int = 17
    length: int = 64
    rules: int = 4
    branching: int = 2

    NAME: ClassVar[str] = "tree-grammar"
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]] = {
        "vocab": (33, 65),
        "length": (16, 256),
        "rules": (2, 8),
    }

    @property
    def tokens(self) -> int:
        return self.length

    @property
    def ids(self) -> dict[str, range]:
        return {"symbols": range(self.vocab - 1), "start": range(self.vocab - 1, self.vocab)}

    @property
    def depth(self) -> int:
        """The number of levels of rules."""
        depth = 0
        while self.branching**depth < self.length:
            depth += 1
        return depth

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The rules of every level, the root's first."""
        rng, symbols = self.generator("grammar"), self.vocab - 1
        levels = []
        for _ in range(self.depth):
            codes = rng.choice(symbols**self.branching, size=symbols * self.rules, replace=False)
            bodies = codes[:, None] // symbols ** np.arange(self.branching) % symbols
            chances = rng.dirichlet(np.ones(self.rules), size=symbols)
            levels.append(Level(bodies.reshape(symbols, self.rules, self.branching), chances))
        return tuple(levels)

    @cached_property
    def marginals(self) -> tuple[Floats, ...]:
        """The probability of each symbol at each place of every level, (places, symbols) each."""
        symbols = self.vocab - 1
        found = [np.full((1, symbols), 1 / symbols)]
        for level in self.levels:
            used = found[-1][:, :, None] * level.chances  # (places, symbols, rules)
            below = np.stack(
                [used.reshape(len(used), -1) @ one for one in _indicators(level, symbols)], axis=1
            )
            found.append(below.reshape(-1, symbols))
        return tuple(found)

    @property
    def chance(self) -> float:
        return float(self.marginals[-1].max(1).mean())

    def optimum(self, split: Split | None = None) -> float:
        """The least cross-entropy there can be, in nats per token.

        Without a split, its expectation over all sequences: a sequence has one tree, so its entropy
        is that of the root and of every rule used, and by the chain rule the mean over its tokens
        is the expected loss of the exact predictor. With one, what that predictor reaches on the
        set.
        """
        if split is not None:
            return self._reached(split)[0]
        total = math.log(self.vocab - 1)
        for level, marginal in zip(self.levels, self.marginals, strict=False):
            logs = np.log(level.chances, out=np.zeros_like(level.chances), where=level.chances > 0)
            entropies = -(level.chances * logs).sum(1)
            total += float((marginal @ entropies).sum())
        return total / self.length

    def ceiling(self, split: Split = "test") -> float:
        """The accuracy on a set of the exact predictor, which knows the grammar."""
        return self._reached(split)[1]

    def next_token(self, tokens: NDArray[np.integer[Any]]) -> Floats:
        """The exact distribution of the token after each of `tokens` (N, T): (N, T, vocab - 1).

        Every finished subtree has one symbol, so what the past says about the next token is which
        rules can still be in use along the path from the root to it.
        """
        symbols, branching = self.vocab - 1, self.branching
        # finished[d][:, i]: the symbol of node i of level d; only finished nodes are looked at.
        finished = [np.asarray(tokens[:, 1:], np.int64)]
        for level in reversed(self.levels):
            finished.insert(0, _parents(level, finished[0], symbols))
        puts = [_indicators(level, symbols) for level in self.levels]
        # beliefs[d]: the distribution of the open node of level d; the root is open throughout.
        beliefs = [np.full((len(tokens), symbols), 1 / symbols)] * (self.depth + 1)
        result = np.empty((*tokens.shape, symbols))
        for place in range(tokens.shape[1]):
            for depth, level in enumerate(self.levels):
                below, inside = divmod(place, branching ** (self.depth - depth - 1))
                if inside:
                    continue  # the same node is open as one place before
                child = below % branching
                fits = np.ones((len(tokens), symbols, self.rules), bool)
                for elder in range(child):
                    shown = finished[depth + 1][:, below - child + elder]
                    fits &= level.bodies[None, :, :, elder] == shown[:, None, None]
                used = beliefs[depth][:, :, None] * level.chances * fits
                belief = used.reshape(len(tokens), -1) @ puts[depth][child]
                beliefs[depth + 1] = belief / belief.sum(1, keepdims=True)
            result[:, place] = beliefs[-1]
        return result

    def check(self) -> None:
        rule = "from 3 to 4,097 ids, two symbols at least and the start"
        self.require(3 <= self.vocab <= 4_097, "vocab", rule)
        self.require(self.branching >= 2, "branching", "at least 2")
        rule = f"a power of branching = {self.branching}, and not 1"
        self.require(self.length == self.branching**self.depth and self.depth > 0, "length", rule)
        bodies = (self.vocab - 1) ** self.branching
        self.require(bodies < 1 << 62, "branching", "smaller: its rules cannot be numbered")
        most = min(bodies // (self.vocab - 1), 1 << 10)
        self.require(1 <= self.rules <= most, "rules", f"from 1 to {most:,}: no two are the same")

    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        symbols = rng.integers(self.vocab - 1, size=(count, 1))
        for level in self.levels:
            bounds = np.cumsum(level.chances[:, :-1], axis=1)
            chosen = (rng.random(symbols.shape)[..., None] >= bounds[symbols]).sum(-1)
            symbols = level.bodies[symbols, chosen].reshape(count, -1)
        tokens = np.full(symbols.shape, self.vocab - 1)
        tokens[:, 1:] = symbols[:, :-1]
        return tokens, symbols

    def _reached(self, split: Split) -> tuple[float, float]:
        """Cross-entropy in nats per token, and accuracy, of the exact predictor on a set."""
        tokens, targets = self.validation if split == "validation" else self.test
        rows = max(1, BLOCK // (self.length * self.vocab))
        nats, correct = 0.0, 0
        for row in range(0, len(tokens), rows):
            predicted = self.next_token(tokens[row : row + rows])
            wanted = targets[row : row + rows].astype(np.int64)
            nats -= float(np.log(np.take_along_axis(predicted, wanted[..., None], 2)).sum())
            correct += int((predicted.argmax(2) == wanted).sum())
        return nats / targets.size, correct / targets.size


def _indicators(level: Level, symbols: int) -> list[Floats]:
    """For each child, which symbol a rule puts there: (symbols x rules, symbols) ones and zeros."""
    flat = level.bodies.reshape(-1, level.bodies.shape[-1])
    return [np.eye(symbols)[flat[:, child]] for child in range(flat.shape[1])]


def _parents(level: Level, children: NDArray[np.int64], symbols: int) -> NDArray[np.int64]:
    """The symbols (N, n // branching) of nodes whose children are (N, n); unfinished ones go."""
    _, rules, branching = level.bodies.shape
    weights = symbols ** np.arange(branching)
    codes = (level.bodies @ weights).ravel()
    order = np.argsort(codes)
    whole = children[:, : children.shape[1] // branching * branching]
    wanted = whole.reshape(len(whole), -1, branching) @ weights
    places = np.searchsorted(codes, wanted, sorter=order)
    found: NDArray[np.int64] = order[np.minimum(places, len(order) - 1)] // rules
    return found
