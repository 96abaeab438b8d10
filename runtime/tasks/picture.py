"""One example of a task as text: what stands where, and what is asked.

Owns: that text.
Refuses: making examples.
"""

from __future__ import annotations

from starc.runtime.data import IGNORED
from starc.runtime.tasks.task import Ids, Part, Task

COLUMNS = 96


def picture(task: Task, *, example: int = 0) -> str:
    """An example of the training set, and of the test set, with targets under the tokens.

    The first line says what the ids stand for. A dot is a position that has no target.
    """
    parts = ", ".join(f"{name} {_range(ids)}" for name, ids in task.ids.items())
    lines = [f"{task.name}: {parts}"]
    shown: tuple[tuple[Part, tuple[Ids, Ids]], ...]
    shown = (("training", task.training), ("test", task.test))
    for part, (tokens, targets) in shown:
        lines += ["", *_rows(part, tokens[example].tolist(), targets[example].tolist())]
    return "\n".join(lines) + "\n"


def _rows(part: str, tokens: list[int], targets: list[int]) -> list[str]:
    wide = max(len(str(token)) for token in [*tokens, *targets] if token != IGNORED)
    label = len("training  targets")
    at_once = (COLUMNS - label) // (wide + 1)
    lines = []
    for first in range(0, len(tokens), at_once):
        window = slice(first, first + at_once)
        asked = ["." if target == IGNORED else str(target) for target in targets[window]]
        shown = [str(token) for token in tokens[window]]
        for title, cells in ((f"{part:8}  tokens", shown), ("targets", asked)):
            title = title if title.startswith(part) and not first else title.split()[-1]
            title = f"{title:{label}}" if title.startswith(part) else f"{'':10}{title:7}"
            lines.append(title + "".join(f" {cell:>{wide}}" for cell in cells))
    return lines


def _range(ids: range) -> str:
    return f"{ids[0]}" if len(ids) == 1 else f"{ids[0]} to {ids[-1]}"
