"""Programs at the size of a protocol.

Owns: width, depth, vocabulary, context and prescribed settings of a judged program, and which
programs cannot be judged.
Refuses: how a program is resized (compiler/resize.py) and states (states.py).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from starc.compiler.driver import Artifact, compile_program, resolve_source
from starc.compiler.options import Options
from starc.compiler.resize import resize
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source
from starc.mad.profiles import Profile, Spec
from starc.runtime.tasks import Task


def fitted(source: Source, options: Options, profile: Profile) -> Source:
    """The program at the protocol's width and depth, with the settings that it prescribes.

    Its context is left as it is, as windows and filters must be cut from it to each task's. Raises
    StarError for a program that sees later tokens, for one that cannot have the size, and for
    whatever is wrong with it.
    """
    model, _ = resolve_source(source, options)
    if not model.causal:
        raise StarError(
            Diagnostic(
                "causality",
                f"'{model.name}' sees later tokens: the tasks of MAD ask for the next one.",
                hint="a program that can be judged has 'causal = true'.",
            )
        )
    prescribed = dict(options.overrides) | dict(profile.overrides)
    options = replace(options, overrides=tuple(prescribed.items()))
    return resize(source, options, width=profile.width or None, units=profile.units or None)


def artifact_for(source: Source, options: Options, task: Task) -> Artifact:
    """The module of a fitted program with the vocabulary and the context of a task."""
    return _artifact(source, replace(options, model=None, overrides=()), task.vocab, task.context)


@lru_cache(maxsize=64)
def _artifact(source: Source, options: Options, vocab: int, context: int) -> Artifact:
    resized = resize(source, options, vocab=vocab, context=context)
    return compile_program(resized, replace(options, format=False))  # which takes most of the time


def first_task(profile: Profile, task: str) -> Task:
    """The baseline of a task, which stands for its others where a program is described."""
    variation = profile.plan(task).variations[0]
    return profile.task(Spec(task, variation, 0.0, 0.0, 0))
