"""What all tasks share: names, settings, sets that are apart, batches, and what can be guessed."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st

from starc.grammar.errors import StarError
from starc.runtime.data import Data
from starc.runtime.tasks import MAD, TASKS, Task, make_task, settings

IGNORED = -100
PARTS = ("training", "validation", "test")
NAMES = list(TASKS)


def refused(error: pytest.ExceptionInfo[StarError]) -> tuple[str, str, str]:
    (found,) = error.value.diagnostics
    return found.code, found.message, found.hint


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    return {name: make_task(name, examples=1_500, held_out_examples=1_500) for name in NAMES}


# --- names and settings ---


def test_mad_has_66_settings():
    counts = {name: len(settings(name)) for name in MAD}
    assert list(counts.values()) == [11, 14, 11, 6, 11, 13]
    assert sum(counts.values()) == 66


BASELINES = {
    "in-context-recall": (16, 128, 12_800, {}),
    "noisy-in-context-recall": (32, 128, 12_800, {"noise": 0.2, "noise_ids": 16}),
    "fuzzy-in-context-recall": (16, 128, 12_800, {}),
    "memorization": (256, 32, 256, {}),
    "compression": (16, 32, 12_800, {"noise": 0.0}),
    "selective-copying": (16, 256, 12_800, {"data": 16}),
    "mqar": (8_192, 64, 100_000, {"pairs": 4}),
}


@pytest.mark.parametrize("name", BASELINES)
def test_baselines_are_those_of_the_papers(name: str):
    task = make_task(name)
    vocab, length, examples, other = BASELINES[name]
    assert (task.vocab, task.length, task.examples) == (vocab, length, examples)
    assert {setting: getattr(task, setting) for setting in other} == other
    assert task.held_out_examples == 1_280


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_can_be_made_and_differs_from_the_baseline(name: str):
    made = [make_task(name, **setting) for setting in settings(name)]
    assert settings(name)[0] == {}
    assert len(set(made)) == len(made)


@pytest.mark.parametrize("name", MAD)
def test_every_setting_of_mad_holds_examples_of_its_size(name: str):
    for setting in settings(name):
        small = {"examples": 3} | setting | {"held_out_examples": 2}
        if small["examples"] > 3:
            small["examples"] = 3
        task = make_task(name, **small)
        for part in PARTS:
            tokens, targets = getattr(task, part)
            assert tokens.shape == targets.shape == (3 if part == "training" else 2, task.tokens)


def test_what_there_is_not():
    with pytest.raises(StarError) as error:
        make_task("in-context-recal")
    assert refused(error) == (
        "unknown-task",
        "there is no task 'in-context-recal'.",
        "did you mean 'in-context-recall'?",
    )
    with pytest.raises(StarError) as error:
        settings("nothing")
    assert refused(error)[2].startswith("there are in-context-recall, noisy-in-context-recall")
    with pytest.raises(StarError) as error:
        make_task("mqar", pair=3)
    assert refused(error) == (
        "unknown-task-setting",
        "the task 'mqar' has no setting 'pair'.",
        "did you mean 'pairs'?",
    )


@pytest.mark.parametrize(
    ("name", "changes", "hint"),
    [
        ("in-context-recall", {"length": 127}, "length: an even number: ids come in pairs."),
        ("in-context-recall", {"vocab": 3}, "vocab: at least 4 ids, two keys and two values."),
        ("in-context-recall", {"vocab": "16"}, "vocab: a whole number."),
        ("in-context-recall", {"vocab": True}, "vocab: a whole number."),
        ("in-context-recall", {"examples": 0}, "examples: there is at least one."),
        (
            "in-context-recall",
            {"held_out_examples": 0},
            "held_out_examples: there is at least one.",
        ),
        ("in-context-recall", {"length": -2}, "length: at least one id."),
        ("noisy-in-context-recall", {"noise": 1.0}, "noise: a share, from 0 to less than 1."),
        ("noisy-in-context-recall", {"noise": math.nan}, "noise: a number."),
        (
            "noisy-in-context-recall",
            {"vocab": 18},
            "vocab: at least 4 ids beside the 16 of noise, two keys and two values.",
        ),
        ("fuzzy-in-context-recall", {"vocab": 6}, "vocab: at least 7 ids: keys have three ids."),
        (
            "fuzzy-in-context-recall",
            {"length": 12},
            "length: at least 13 ids: a pair has up to six.",
        ),
        ("memorization", {"length": 5}, "length: an even number: keys and places for answers."),
        (
            "compression",
            {"noise": 0.5},
            "vocab: at least two ids of data, beside the last id and those of noise.",
        ),
        ("selective-copying", {"data": 128}, "length: at least 2 x data + 1 = 257 ids."),
        ("mqar", {"pairs": 17}, "length: at least 4 x pairs = 68 ids."),
        ("rank", {"rank": 65}, "rank: from 1 to 64, the number of keys."),
        ("rank", {"rank": 64}, "length: more than 2 x rank = 128 ids, or nothing is asked."),
        (
            "length-extrapolation",
            {"vocab": 16},
            "vocab: at least half of 'length', or hardly a key stays away for so long.",
        ),
        ("tree-grammar", {"length": 60}, "length: a power of branching = 2, and not 1."),
        ("tree-grammar", {"rules": 17}, "rules: from 1 to 16: no two are the same."),
    ],
)
def test_bad_settings_are_refused(name: str, changes: dict[str, Any], hint: str):
    with pytest.raises(StarError) as error:
        make_task(name, **changes)
    code, message, said = refused(error)
    assert code == "bad-task-setting"
    assert message.startswith(f"the task '{name}' cannot be made with ")
    assert said == hint


def test_tasks_beyond_memory_are_refused():
    with pytest.raises(StarError) as error:
        make_task("compression", length=10**12)
    assert refused(error)[0] == "task-too-large"


# --- seeds and sets ---


@pytest.mark.parametrize("name", NAMES)
def test_the_same_settings_and_seed_give_the_same_examples(name: str):
    first, again = (make_task(name, examples=40, held_out_examples=30, seed=7) for _ in range(2))
    other = make_task(name, examples=40, held_out_examples=30, seed=8)
    assert first == again
    assert first.digest == again.digest != other.digest
    for part in PARTS:
        for a, b in zip(getattr(first, part), getattr(again, part), strict=True):
            assert (a == b).all()
        assert any(
            (a != b).any() for a, b in zip(getattr(first, part), getattr(other, part), strict=True)
        )


@pytest.mark.parametrize("name", NAMES)
def test_drawing_leaves_the_global_generator_alone(name: str):
    state = np.random.get_state()[1].copy()  # type: ignore[union-attr, index]
    make_task(name, examples=10, held_out_examples=10).digest  # noqa: B018
    assert (np.random.get_state()[1] == state).all()  # type: ignore[index]


@pytest.mark.parametrize("name", NAMES)
def test_the_size_of_the_training_set_leaves_the_test_alone(name: str):
    few, many = (make_task(name, examples=n, held_out_examples=20) for n in (5, 50))
    assert (few.test[0] == many.test[0]).all()
    assert (few.validation[0] == many.validation[0]).all()


@pytest.mark.parametrize("name", NAMES)
def test_no_example_stands_in_two_sets_or_twice(tasks: dict[str, Task], name: str):
    task = tasks[name]
    seen: set[bytes] = set()
    for part in PARTS:
        rows = {row.tobytes() for row in getattr(task, part)[0][:, : task.tokens]}
        assert len(rows) == 1_500
        assert not rows & seen
        seen |= rows


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_as_small_as_their_ids_allow(tasks: dict[str, Task], name: str):
    tokens, targets = tasks[name].training
    assert tokens.dtype == (np.uint8 if tasks[name].vocab <= 256 else np.uint16)
    assert targets.dtype == (np.int8 if tasks[name].vocab <= 128 else np.int16)


def test_ids_at_the_edges_of_their_dtypes_survive():
    for vocab in (128, 129, 256, 257):
        tokens, targets = make_task("compression", vocab=vocab, examples=5).training
        assert tokens.max() == targets.max() == vocab - 1
    task = make_task("memorization", vocab=70_000, examples=5)
    assert task.training[0].max() == 69_999
    assert task.training[1].max() > 34_998


@pytest.mark.parametrize("name", NAMES)
def test_ids_cover_the_vocabulary_once(name: str):
    task = make_task(name)
    assert sorted(i for ids in task.ids.values() for i in ids) == list(range(task.vocab))


# --- batches ---


@pytest.mark.parametrize("name", NAMES)
def test_a_task_is_data(tasks: dict[str, Task], name: str):
    data: Data = tasks[name]
    tokens, targets = data.batch(1, batch=7, length=99, seed=0)
    assert tokens.dtype == targets.dtype == np.int64
    assert tokens.shape == targets.shape == (7, tasks[name].tokens)
    assert targets.min() >= IGNORED
    for split in ("validation", "test"):
        tokens, targets = data.held_out(split, length=99, limit=11)
        assert tokens.dtype == targets.dtype == np.int64
        assert len(tokens) == len(targets) == 11
        assert (tokens == getattr(tasks[name], split)[0][:11]).all()
    assert data.name == name
    assert data.bytes_per_token == 0


def test_an_epoch_shows_every_example_once_in_another_order():
    task = make_task("compression", examples=10, length=24)
    # 15 batches of 4 are 6 epochs of 10; many batches span two.
    rows = np.concatenate([task.batch(s, batch=4, seed=1)[0] for s in range(1, 16)])
    whole = {row.tobytes(): i for i, row in enumerate(task.training[0].astype(np.int64))}
    orders = np.array([whole[row.tobytes()] for row in rows]).reshape(6, 10)
    assert (np.sort(orders, axis=1) == np.arange(10)).all()
    assert len({tuple(order) for order in orders.tolist()}) == 6
    other = task.batch(1, batch=10, seed=2)[0]
    assert [whole[row.tobytes()] for row in other] != orders[0].tolist()


def test_a_batch_may_be_larger_than_the_training_set():
    task = make_task("compression", examples=3)
    tokens, _ = task.batch(2, batch=8, seed=0)
    counts = sorted(np.unique(tokens, axis=0, return_counts=True)[1].tolist())
    assert counts in ([2, 3, 3], [2, 2, 4])


def test_a_batch_depends_on_seed_and_step_alone():
    first, again = (make_task("mqar", examples=64) for _ in range(2))
    for step in (9, 2):
        first.batch(step, batch=4, seed=0)
    for a, b in zip(
        first.batch(5, batch=16, seed=3), again.batch(5, batch=16, seed=3), strict=True
    ):
        assert (a == b).all()


# --- what can be guessed, and what can be memorized ---


@pytest.mark.parametrize("name", NAMES)
def test_the_best_guess_at_each_position_reaches_chance(tasks: dict[str, Task], name: str):
    """The commonest validation target of each position, on the test set."""
    task = tasks[name]
    _, known = task.validation
    _, asked = task.test
    if name == "length-extrapolation":  # its test has positions that validation has not
        known, asked = asked[:750], asked[750:]
    guess = np.array([np.bincount(c[c >= 0], minlength=task.vocab).argmax() for c in known.T])
    scored = asked != IGNORED
    accuracy = (np.broadcast_to(guess, asked.shape) == asked)[scored].mean()
    # The answers of a sequence are not independent: count sequences.
    slack = 5 * math.sqrt(task.chance * (1 - task.chance) / len(asked))
    assert abs(accuracy - task.chance) < min(slack, task.chance / 2 + 0.01)


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("tree-grammar", "compression")])
def test_only_the_fixed_map_can_be_learnt_by_heart(tasks: dict[str, Task], name: str):
    """The commonest answer of training to the last id, or in memorization to the one before it."""
    task = tasks[name]
    back = 1 if name == "memorization" else 0

    def asked(part: tuple[Any, Any]) -> tuple[list[int], list[int]]:
        rows, places = np.nonzero(part[1] != IGNORED)
        return part[0][rows, places - back].tolist(), part[1][rows, places].tolist()

    counts: dict[int, Counter[int]] = defaultdict(Counter)
    for token, answer in zip(*asked(task.training), strict=True):
        counts[token][answer] += 1
    said = {token: counter.most_common(1)[0][0] for token, counter in counts.items()}
    accuracy = np.mean([said.get(t) == a for t, a in zip(*asked(task.test), strict=True)])
    if name == "memorization":
        assert accuracy == task.ceiling() == 1.0
    else:
        assert accuracy < task.chance + 0.05
        assert task.ceiling() == 1.0


# --- any settings ---

SIZES = {
    "vocab": st.integers(0, 40),
    "length": st.integers(0, 40),
    "noise": st.floats(-0.1, 1.1),
    "noise_ids": st.integers(0, 12),
    "data": st.integers(0, 12),
    "pairs": st.integers(0, 8),
    "rank": st.integers(0, 12),
    "factor": st.integers(1, 4),
    "rules": st.integers(0, 6),
    "branching": st.integers(1, 4),
}


@st.composite
def any_settings(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    name = draw(st.sampled_from(NAMES))
    known = [field for field in SIZES if field in TASKS[name].__dataclass_fields__]
    changes = {field: draw(SIZES[field]) for field in known if draw(st.booleans())}
    return name, changes | {"seed": draw(st.integers(-3, 3))}


@given(any_settings())
@limits(max_examples=100, deadline=None)
def test_any_settings_give_a_task_or_a_diagnostic(chosen: tuple[str, dict[str, Any]]):
    name, changes = chosen
    try:
        task = make_task(name, examples=5, held_out_examples=4, **changes)
    except StarError as found:
        (refusal,) = found.diagnostics
        assert refusal.code == "bad-task-setting"
        return
    for part in PARTS:
        tokens, targets = getattr(task, part)
        width = task.context if part == "test" else task.tokens
        assert tokens.shape == targets.shape == (5 if part == "training" else 4, width)
        assert 0 <= tokens.min()
        assert tokens.max() < task.vocab
        assert ((targets == IGNORED) | ((targets >= 0) & (targets < task.vocab))).all()
        if name != "length-extrapolation" or part != "test":
            assert (targets != IGNORED).any(1).all()
    assert 0 < task.chance <= 1
    assert 0 < task.ceiling() <= 1
