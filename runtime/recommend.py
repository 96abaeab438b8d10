"""Settings that fit a program and its data, for what was not asked for.

Owns: the defaults of a training run, and refusing what cannot work before a run is made.
Refuses: training.
"""

from __future__ import annotations

import math
from typing import Any

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.data import Data
from starc.runtime.device import pick_device
from starc.runtime.loader import Generated
from starc.runtime.precision import PRECISIONS, fastest_precision
from starc.runtime.run import Settings
from starc.runtime.schedule import SCHEDULES

LEARNING_RATE = 4e-3
"""The peak for matrices that read 128 channels (optim.py), in models of 4 units.

Near the best of short runs of attention (benchmarks/results/learning_rates.md); recurrences bear
more.
"""


def recommended_settings(
    module: Generated,
    data: Data,
    steps: int,
    *,
    batch: int | None = None,
    length: int | None = None,
    learning_rate: float | None = None,
    seed: int = 0,
    device: str = "auto",
    precision: str = "auto",
    schedule: str = "cosine",
    accumulate: int = 1,
    **others: Any,
) -> Settings:
    """Settings for a program, with what is not given chosen for it.

    Length: the task's; of text the context, 512 at most. Batch: 4,096 tokens of text a step, and
    128 examples of a task. Learning rate: 4e-3, of which optim.py makes rates that fit the width
    and the depth. Precision "auto" times a step of both kinds on the device. `others` are settings
    as they are. Raises StarError for a model that cannot read the data, a length beyond its
    context, or a device that is not there.
    """
    config = module.CONFIG
    text = data.bytes_per_token > 0
    if config["vocab"] < data.vocab:
        raise _error(
            "vocab-too-small",
            f"'{config['name']}' has a vocabulary of {config['vocab']:,}, but '{data.name}' has "
            f"tokens up to {data.vocab - 1:,}.",
            f"set vocab = {data.vocab} in the model, or give --set vocab={data.vocab}.",
        )
    if not config.get("causal", True):
        raise _error(
            "causality",
            f"'{config['name']}' sees later tokens: it cannot learn to predict them.",
            "a language model has 'causal = true'; this one encodes a text.",
        )
    _one_of("precision", precision, PRECISIONS)
    _one_of("schedule", schedule, SCHEDULES)
    if learning_rate is not None and not 0 < learning_rate < math.inf:
        raise _error(
            "bad-learning-rate",
            f"the learning rate {learning_rate} is not a positive number.",
            "leave --lr out for a rate that fits the width.",
        )
    length = length or min(config["context"], 512)
    longest = length
    if not text:  # a task's examples are as long as they are, and those of its test may be longer
        length = data.batch(1, batch=1, length=length, seed=seed)[0].shape[1]
        longest = data.held_out("test", length=length, limit=1)[0].shape[1]
    if longest > config["context"]:
        raise _error(
            "length-beyond-context",
            f"the length {longest:,} is beyond the model's context of {config['context']:,}.",
            (
                f"give --length {config['context']} or less."
                if text
                else f"give --set context={longest}, or a shorter task."
            ),
        )
    batch = batch or (max(1, 4096 // length) if text else 128)
    if accumulate > batch:
        raise _error(
            "bad-accumulate",
            f"a batch of {batch} cannot be split into {accumulate} micro-batches.",
            f"give --accumulate {batch} or less, or a larger --batch.",
        )
    place = pick_device(device)
    if precision == "auto":
        precision = fastest_precision(module, data, place, -(-batch // accumulate), length)
    held_out = min(65_536, steps * batch * length // 32) if text else 1_280 * length
    return Settings(
        **{
            "data": data.name,
            "steps": steps,
            "batch": batch,
            "length": length,
            "learning_rate": learning_rate or LEARNING_RATE,
            "warmup": max(1, min(500, steps // 10)),
            "seed": seed,
            "device": str(place),
            "precision": precision,
            "schedule": schedule,
            "accumulate": accumulate,
            "validate_every": max(1, min(500, -(-steps // 10))),
            "validation_tokens": max(length, held_out),
            "divergence": math.log(data.vocab) / 2,
            **others,
        }
    )


def _one_of(what: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise _error(
            f"bad-{what}",
            f"there is no {what} '{given}'.",
            f"give {', '.join(known[:-1])} or {known[-1]}.",
        )


def _error(code: str, message: str, hint: str) -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
