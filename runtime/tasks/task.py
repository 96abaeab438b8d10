"""What every synthetic task is: settings, and three sets of examples drawn from them and a seed.

Owns: seeds, the sets of examples and how they are kept, and the batches of a training step.
Refuses: what the examples look like (each task's own file), and scoring.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property, lru_cache
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from torch import nn

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.data import IGNORED, Split, Tokens

Ids = NDArray[np.integer[Any]]
Part = Literal["training", "validation", "test"]

BLOCK = 1 << 18
"""Examples are drawn in blocks of about so many tokens, which bounds the memory of drawing."""

LARGEST = 1 << 30
"""The most tokens that a task may hold in all its sets."""


@dataclass(frozen=True, kw_only=True)
class Task(ABC):
    """A synthetic task; `make_task` makes one by name.

    `vocab` ids in all, training sequences of `length` ids, `examples` of them in the training set,
    which is fixed, and `held_out_examples` in each of the other two. All examples follow from the
    settings and `seed`; the numbers of examples have no part in what is drawn, so that tasks that
    differ in `examples` are judged by the same test set.
    Raises StarError for settings of which no task can be made.
    """

    vocab: int
    length: int
    examples: int = 12_800
    held_out_examples: int = 1_280
    seed: int = 0

    NAME: ClassVar[str]
    VARIATIONS: ClassVar[Mapping[str, tuple[float, ...]]]
    """Other values of settings, each varied alone; the defaults are the baseline."""
    HARDER: ClassVar[tuple[dict[str, Any], ...]] = ()
    """Settings that are varied together."""

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_type(field.name, str(field.type))
        self.require(self.examples >= 1, "examples", "there is at least one")
        self.require(self.held_out_examples >= 1, "held_out_examples", "there is at least one")
        self.require(self.vocab <= 1 << 20, "vocab", f"at most {1 << 20:,} ids")
        self.require(self.length >= 1, "length", "at least one id")
        self.check()
        held_out = self.held_out_examples * (self.tokens + self.context)
        if (tokens := self.examples * self.tokens + held_out) > LARGEST:
            raise _error(
                "task-too-large",
                f"the task '{self.NAME}' would hold {tokens:,} tokens.",
                f"at most {LARGEST:,}: make 'examples' or 'length' smaller.",
            )

    @property
    def name(self) -> str:
        return self.NAME

    @property
    def bytes_per_token(self) -> float:
        return 0.0

    @property
    @abstractmethod
    def tokens(self) -> int:
        """Tokens of a training example, as the model sees it."""

    @property
    def context(self) -> int:
        """Tokens of a test example, the longest there are: what a model's context must reach."""
        return self.tokens

    @property
    @abstractmethod
    def ids(self) -> dict[str, range]:
        """What the ids stand for; together 0 .. vocab - 1."""

    @property
    @abstractmethod
    def chance(self) -> float:
        """The expected accuracy of the best guess that looks at no token, only at its position."""

    def ceiling(self, split: Split = "test") -> float:
        """The accuracy on a set of the best learner there can be, given the training set."""
        return 1.0

    @abstractmethod
    def check(self) -> None:
        """Raise StarError, by `require`, for settings that do not fit together."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, count: int, part: Part) -> tuple[Ids, Ids]:
        """`count` examples of a set: tokens and targets, both (count, T), drawn from `rng`."""

    @cached_property
    def training(self) -> tuple[Ids, Ids]:
        """Tokens and targets of the training set, both (examples, T), in the smallest dtypes."""
        return self._examples("training", self.examples)

    @cached_property
    def validation(self) -> tuple[Ids, Ids]:
        return self._examples("validation", self.held_out_examples)

    @cached_property
    def test(self) -> tuple[Ids, Ids]:
        return self._examples("test", self.held_out_examples)

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256()
        for array in (*self.training, *self.validation, *self.test):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()

    def batch(self, step: int, *, batch: int, length: int = 0, seed: int) -> tuple[Tokens, Tokens]:
        """Tokens and targets of training step `step`, counted from 1, both (batch, T) int64.

        Steps walk through the training set epoch by epoch, each in an order drawn from `seed` and
        the number of the epoch; a batch may span two epochs. `length` is ignored.
        """
        epochs, places = np.divmod(np.arange((step - 1) * batch, step * batch), self.examples)
        chosen = np.empty(batch, np.int64)
        for epoch in range(int(epochs[0]), int(epochs[-1]) + 1):
            inside = epochs == epoch
            chosen[inside] = _order(self.examples, seed, epoch)[places[inside]]
        tokens, targets = self.training
        return tokens[chosen].astype(np.int64), targets[chosen].astype(np.int64)

    def held_out(self, split: Split, *, length: int = 0, limit: int) -> tuple[Tokens, Tokens]:
        """The first `limit` examples of a set, tokens and targets, both (n, T) int64."""
        tokens, targets = self.validation if split == "validation" else self.test
        return tokens[:limit].astype(np.int64), targets[:limit].astype(np.int64)

    def adapt(self, model: nn.Module) -> nn.Module:
        """The model itself, which predicts at every position."""
        return model

    def generator(self, purpose: str) -> np.random.Generator:
        """The generator of what is drawn for `purpose`, from the settings and the seed alone."""
        counts = ("examples", "held_out_examples")
        settings = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in counts}
        return _generator(self.NAME, settings, purpose)

    def require(self, holds: bool, setting: str, rule: str) -> None:
        """Raise StarError about `setting` unless the rule `holds`."""
        if not holds:
            raise _bad_setting(self.NAME, setting, getattr(self, setting), rule)

    def require_share(self, setting: str) -> None:
        """Raise StarError unless a setting is at least 0 and less than 1."""
        self.require(0 <= getattr(self, setting) < 1, setting, "a share, from 0 to less than 1")

    def _examples(self, part: Part, count: int) -> tuple[Ids, Ids]:
        rng = self.generator(part)
        width = self.context if part == "test" else self.tokens
        rows = max(1, BLOCK // width)
        kinds = (np.min_scalar_type(self.vocab - 1), np.min_scalar_type(min(IGNORED, -self.vocab)))
        tokens, targets = (np.empty((count, width), kind) for kind in kinds)
        for row in range(0, count, rows):
            block = slice(row, min(row + rows, count))
            tokens[block], targets[block] = self.draw(rng, block.stop - row, part)
        return tokens, targets

    def _check_type(self, name: str, kind: str) -> None:
        value = getattr(self, name)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if kind == "int":
            self.require(whole, name, "a whole number")
        else:
            number = whole or isinstance(value, float)
            self.require(number and math.isfinite(value), name, "a number")


@lru_cache(maxsize=16)
def _order(count: int, seed: int, epoch: int) -> NDArray[np.int64]:
    order = _generator("order", seed, epoch).permutation(count)
    order.flags.writeable = False
    return order


def _generator(*origin: object) -> np.random.Generator:
    digest = hashlib.sha256(json.dumps(origin, sort_keys=True).encode()).digest()
    return np.random.default_rng(np.random.SeedSequence(int.from_bytes(digest, "little")))


def _bad_setting(task: str, setting: str, value: object, rule: str) -> StarError:
    return _error(
        "bad-task-setting",
        f"the task '{task}' cannot be made with {setting} = {value!r}.",
        f"{setting}: {rule}.",
    )


def _error(code: str, message: str, hint: str) -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
