"""What is remembered between programs changes nothing about any of them."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from starc.compiler.cost import CostModel
from starc.compiler.driver import identity, resolve_source
from starc.compiler.options import Options
from starc.compiler.passes.share import share
from starc.grammar import nodes
from starc.grammar.errors import StarError
from starc.grammar.source import Source
from starc.search.crossover import Crossing
from starc.search.mutate import Mutator, opened
from starc.search.objectives import static_figures
from starc.search.pool import Pool
from starc.search.site import Bounds
from starc.search.texts import text_of, tree_of
from starc.search.verifying import Checked, Verifier

ROOT = Path(__file__).parents[2]
EXAMPLES = (
    "byte_hybrid",
    "value_residual",
    "star",
    "hyper_connections",
    "mixtral",
    "gated_deltanet",
)
SPACES = ("searches/tiny", "searches/star")


class Twice(Verifier):
    """A verifier that has every program checked by another one, which never saw any before."""

    checks = refusals = 0

    def check(self, program: nodes.Program, model: str | None = None) -> Checked:
        try:
            anew: Checked | StarError = Verifier(self.limits).check(program, model)
        except StarError as failure:
            anew = failure
        if isinstance(anew, StarError):
            self.refusals += 1
            with pytest.raises(StarError) as refused:
                super().check(program, model)
            assert refused.value.diagnostics == anew.diagnostics
            raise anew
        checked = super().check(program, model)
        assert checked == anew
        assert checked.ir == anew.ir
        assert checked.units == anew.units == checked.ir.depth
        self.checks += 1
        return checked


def program_of(name: str, seed: int = 0) -> tuple[nodes.Program, Pool, Verifier]:
    path = ROOT / "examples" / f"{name}.star"
    source = Source(str(path), path.read_text(encoding="utf-8"))
    return opened(source, Options(), random.Random(seed))


def walk(name: str, steps: int, seed: int = 0) -> list[Checked]:
    """The programs of a chain of mutations and crossovers, each checked twice."""
    program, pool, _ = program_of(name, seed)
    verifier, rng, bounds = Twice(), random.Random(seed), Bounds(units=30)
    mutators = [
        Mutator(pool, verifier=verifier, bounds=bounds, constrained=mode) for mode in (True, False)
    ]
    crossing = Crossing(verifier=verifier, bounds=bounds)
    found = [verifier.check(program)]
    for step in range(steps):
        here = found[-1].program
        if step % 3 == 2:
            made = crossing.cross(here, rng.choice(found).program, rng).checked
        else:
            made = mutators[step % 2].mutate(here, rng).checked
        found.append(made)
    assert verifier.checks > steps
    return found


@pytest.mark.parametrize("name", [*EXAMPLES[:2], SPACES[0]])
def test_a_program_is_judged_as_if_it_were_the_first(name: str):
    agree(walk(name, 8))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*EXAMPLES, *SPACES])
@pytest.mark.parametrize("seed", range(3))
def test_long_walks_are_judged_as_if_each_program_were_the_first(name: str, seed: int):
    agree(walk(name, 60, seed))


@settings(max_examples=3, deadline=None)
@given(st.sampled_from((*EXAMPLES, SPACES[0])), st.integers(0, 2**32))
def test_chains_of_any_seed_are_judged_as_if_each_program_were_the_first(name: str, seed: int):
    """Of mutations and crossovers, in both modes: what is verified step by step is what is verified
    from nothing, refusals among them (`Twice`)."""
    agree(walk(name, 6, seed))


def agree(found: list[Checked]) -> None:
    """Programs are, from their texts, what they were checked to be; one identity is one digest."""
    costs, digests = CostModel(), dict[str, str]()
    for checked in found:
        text = text_of(checked.program)
        model, _ = resolve_source(Source(checked.program.source.name, text), Options())
        assert checked.ir == share(model)
        assert static_figures(checked, costs=costs) == static_figures(checked)
        assert digests.setdefault(checked.identity, identity(model)) == identity(model)


def test_refused_programs_are_refused_alike():
    program, pool, _ = program_of("searches/tiny")
    verifier = Twice()
    mutator = Mutator(pool, verifier=verifier, constrained=False)
    for seed in range(40):
        mutator.mutate(program, random.Random(seed), level="operator")
    assert verifier.refusals


@pytest.mark.parametrize("name", ["value_residual", "searches/star"])
def test_nothing_depends_on_what_was_asked_before(name: str):
    """The same seeds make the same programs, whether the verifier is old or new, and whether the
    program was just made or is read from its text."""
    program, pool, old = program_of(name)
    rng = random.Random(1)
    used = Mutator(pool, verifier=old)
    for _ in range(12):
        used.mutate(program, rng)
    for seed in range(5):
        text = text_of(program)
        read = tree_of(text, program.source)
        assert read == program
        one = used.mutate(program, random.Random(seed))
        other = Mutator(pool).mutate(read, random.Random(seed))
        assert text_of(one.program) == text_of(other.program)
        assert (one.name, one.rejected) == (other.name, other.rejected)
        assert one.checked.identity == other.checked.identity
        program = one.program


def test_a_verifier_that_forgets_goes_on(monkeypatch: pytest.MonkeyPatch):
    program, pool, verifier = program_of("byte_hybrid")
    kept = [Mutator(pool, verifier=verifier).mutate(program, random.Random(s)) for s in range(6)]
    monkeypatch.setattr("starc.search.verifying._BODIES", 0)
    forgetful = Mutator(pool, verifier=Verifier())
    for seed, change in enumerate(kept):
        again = forgetful.mutate(program, random.Random(seed))
        assert text_of(again.program) == text_of(change.program)
        assert again.checked.identity == change.checked.identity


WALK = """
import hashlib
from tests.search.test_verifying import text_of, walk
found = walk("byte_hybrid", 6)
print(hashlib.sha256("".join(text_of(c.program) + c.identity for c in found).encode()).hexdigest())
"""


@pytest.mark.slow
def test_the_seed_of_hashes_changes_nothing():
    said = set()
    for seed in ("0", "1", "77"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", WALK],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        said.add(done.stdout)
    assert len(said) == 1
