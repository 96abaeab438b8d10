"""Data by name: `task:NAME` for a synthetic task, anything else for text.

Owns: what the name of a task says, and which runs learnt text.
Refuses: where text comes from, and what tasks there are.
"""

from __future__ import annotations

from starc.grammar.errors import Diagnostic, StarError
from starc.runtime.corpus import open_corpus
from starc.runtime.data import Data
from starc.runtime.run import Run
from starc.runtime.tasks import make_task
from starc.runtime.tokenizer import ByteTokenizer, Tokenizer

TASK = "task:"


def open_data(name: str, tokenizer: Tokenizer | None = None) -> Data:
    """The task or the corpus called `name`; `tokenizer` is for text.

    A task's settings follow its name: `task:mqar,vocab=512,length=64`. Raises StarError when there
    is no such thing.
    """
    if not name.startswith(TASK):
        return open_corpus(name, tokenizer)
    if not isinstance(tokenizer, ByteTokenizer | None):
        raise StarError(
            Diagnostic(
                "bad-tokenizer", f"'{name}' has no text for a tokenizer.", hint="leave it out."
            )
        )
    task, *settings = name.removeprefix(TASK).split(",")
    given = dict(_setting(setting) for setting in settings)
    return make_task(task.strip(), **given)  # type: ignore[arg-type]


def require_text(run: Run) -> None:
    """Raise StarError for a run that learnt a task: its tokens are no text."""
    data = run.settings.data
    if data.startswith(TASK):
        raise StarError(
            Diagnostic(
                "no-text",
                f"the run in '{run.folder}' learnt the task '{data.removeprefix(TASK)}', whose "
                "tokens are no text.",
                hint="its metrics.jsonl has its held-out scores.",
            )
        )


def _setting(text: str) -> tuple[str, int | float]:
    name, _, value = (part.strip() for part in text.partition("="))
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    raise StarError(
        Diagnostic(
            "bad-task-setting",
            f"'{text}' gives no setting of a task a number.",
            hint="write task:in-context-recall,vocab=32,length=256.",
        )
    )
