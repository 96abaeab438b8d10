"""The folder of one training run.

    RUN/program.star      the program as it was given
    RUN/model.py          the module generated from it, which alone is imported
    RUN/tokenizer.json    the tokenizer of its text, unless tokens are bytes
    RUN/config.json       all settings, versions and the digest of the data: what resuming needs
    RUN/metrics.jsonl     a line per step and per validation
    RUN/checkpoint/       the newest checkpoint
    RUN/stable/           of schedule "wsd": the checkpoint before the decay
    RUN/tensorboard/      where it was asked for: the metrics as TensorBoard reads them

Owns: making, opening and describing that folder.
Refuses: training.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from starc import __version__
from starc.grammar.errors import Diagnostic, StarError
from starc.runtime import checkpoint
from starc.runtime.data import Data
from starc.runtime.files import write_atomic
from starc.runtime.loader import Generated, load
from starc.runtime.optim import BASE_WIDTH
from starc.runtime.schedule import stable_until
from starc.runtime.tokenizer import ByteTokenizer, Tokenizer, open_tokenizer

_TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Settings:
    """Everything that decides the course of a run; recorded, and never changed on resuming.

    `length` is in tokens, `batch` in sequences, `warmup` in steps; `precision` is "fp32" or "bf16"
    (autocast). A batch is computed in `accumulate` parts, one after the other. `schedule.py` reads
    `schedule`, `decay_share` and `decay_after`, `course.py` the last four. `validation_tokens` is
    how much held-out data a validation reads, spread evenly over all of it. `learning_rate` is that
    of `base_width` channels, from which optim.py makes one for every class of parameters; with 0
    all learn at the same.
    """

    data: str
    steps: int
    batch: int
    length: int
    learning_rate: float
    warmup: int
    base_width: int = BASE_WIDTH
    weight_decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    device: str = "cpu"
    precision: str = "fp32"
    schedule: str = "cosine"
    decay_share: float = 0.2
    decay_after: int = 0
    accumulate: int = 1
    validate_every: int = 100
    validation_tokens: int = 65_536
    stop_accuracy: float = 0.0
    patience: int = 0
    divergence: float = 0.0
    divergence_steps: int = 200


@dataclass(frozen=True)
class Run:
    """An opened run. `name` and `digest` are the program's, `data_digest` the corpus's."""

    folder: Path
    name: str
    digest: str
    data_digest: str
    settings: Settings

    @property
    def model_path(self) -> Path:
        return self.folder / "model.py"

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def stable(self) -> Path:
        return self.folder / "stable"

    @property
    def board(self) -> Path:
        return self.folder / "tensorboard"

    def module(self) -> Generated:
        """The generated module; raises StarError when it is damaged."""
        return load(self.model_path)

    def tokenizer(self) -> Tokenizer:
        """The tokenizer of its text; raises StarError when it is damaged."""
        path = self.folder / _TOKENIZER
        return open_tokenizer(str(path)) if path.exists() else ByteTokenizer()


def exists(folder: Path) -> bool:
    """Whether there is a run in `folder`."""
    return (folder / "config.json").exists()


def create(
    folder: Path,
    *,
    program: str,
    module_text: str,
    data_digest: str,
    settings: Settings,
    tokenizer: Tokenizer | None = None,
) -> Run:
    """Make a run's folder, which may exist but must hold no run; raises OSError and StarError.

    It keeps a copy of the tokenizer of a text, if it has one and tokens are not bytes.
    The configuration is written last: a folder without it is no run, whatever else is in it.
    """
    module = load(module_text)
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(folder, str(module.CONFIG["name"]), module.DIGEST, data_digest, settings)
    write_atomic(folder / "program.star", program.encode())
    write_atomic(run.model_path, module_text.encode())
    description = tokenizer.to_json() if tokenizer else None
    if description is not None:
        write_atomic(folder / _TOKENIZER, description)
    config = {
        "starc": __version__,
        "torch": torch.__version__,
        "name": run.name,
        "digest": run.digest,
        "data_digest": data_digest,
        "settings": asdict(settings),
    }
    write_atomic(folder / "config.json", (json.dumps(config, indent=2) + "\n").encode())
    return run


def open_run(folder: Path) -> Run:
    """The run in `folder`; raises StarError when there is none or its configuration is damaged."""
    try:
        config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    except FileNotFoundError as error:
        raise _error(
            "no-run",
            f"there is no run in '{folder}'.",
            "make one with 'starc train FILE --data stdlib --steps 1000 --out RUN'.",
        ) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise _error("cannot-read", f"cannot read the run in '{folder}': {reason}.") from error
    except ValueError as error:
        raise _error("run-damaged", f"'{folder / 'config.json'}' is damaged: {error}.") from error
    try:
        settings = _settings(config["settings"])
        name, digest, data = (str(config[key]) for key in ("name", "digest", "data_digest"))
    except (KeyError, TypeError, AttributeError) as error:
        raise _error(
            "run-damaged", f"'{folder / 'config.json'}' is damaged: {error} is missing or wrong."
        ) from error
    return Run(folder, name, digest, data, settings)


def extend(run: Run, steps: int) -> Run:
    """The run with another budget of steps, recorded; the same run when it has that one.

    A schedule that has not looked at the budget yet goes on from its newest such checkpoint, so
    that the run becomes the one that it would be had it been begun with `steps`, if that decays no
    earlier. Raises StarError for a cosine, and for a budget that is spent.
    """
    settings = run.settings
    if steps == settings.steps:
        return run
    if settings.schedule == "cosine":
        raise _error(
            "run-differs",
            f"the run in '{run.folder}' has steps {settings.steps}, not {steps}: a cosine decays "
            "over the whole budget.",
            "begin another with a new --out; with --schedule wsd a run can get another budget.",
        )
    found = map(checkpoint.step_of, checkpoint.all_in(run.checkpoints, run.stable))
    reached = max((step for step in found if step <= stable_until(settings)), default=0)
    if steps <= reached:
        raise _error(
            "run-differs",
            f"the run in '{run.folder}' has taken {reached:,} steps already, not less than "
            f"{steps:,}.",
            "give more --steps, or begin another with a new --out.",
        )
    longer = replace(run, settings=replace(settings, steps=steps, decay_after=reached))
    path = run.folder / "config.json"
    config = {**json.loads(path.read_text()), "settings": asdict(longer.settings)}
    write_atomic(path, (json.dumps(config, indent=2) + "\n").encode())
    return longer


def trained_model(
    run: Run, device: torch.device | str = "cpu", data: Data | None = None
) -> torch.nn.Module:
    """The model of a run with its newest weights, in evaluation mode, with the head of `data`.

    Raises StarError when there is no checkpoint yet or it is damaged.
    """
    path = checkpoint.latest(run.checkpoints)
    if path is None:
        raise _error(
            "no-checkpoint",
            f"the run in '{run.folder}' has no checkpoint yet.",
            f"train it with 'starc train --resume --out {run.folder}'.",
        )
    model = run.module().Model()
    model = (model if data is None else data.adapt(model)).to(device)
    checkpoint.restore_weights(model, checkpoint.load_weights(path, device), path)
    return model.eval()


def _settings(recorded: dict[str, Any]) -> Settings:
    """Settings from JSON, without names of other versions; TypeError for a wrong type."""
    kinds: dict[str, Any] = {"int": int, "float": (int, float), "str": str}
    known = {field.name: kinds[str(field.type)] for field in fields(Settings)}
    values = {name: value for name, value in recorded.items() if name in known}
    for name, value in values.items():
        if not isinstance(value, known[name]):
            raise TypeError(f"the setting '{name}'")
    return Settings(**values)


def _error(code: str, message: str, hint: str = "") -> StarError:
    return StarError(Diagnostic(code, message, hint=hint))
