"""Programs of examples/families: they compile clean and give the logits of published models."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from starc.compiler.driver import check_program
from starc.compiler.options import Options
from starc.grammar.library import read_source
from starc.grammar.parser import parse
from starc.grammar.printer import format_program
from tests.numerics.test_graphs import check

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "examples" / "families").glob("*.star"))


def families() -> ModuleType:
    """benchmarks/families.py, which is no part of the package."""
    known = sys.modules.get("starc_families")
    if known is not None:
        return known
    spec = importlib.util.spec_from_file_location(
        "starc_families", ROOT / "benchmarks" / "families.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["starc_families"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", [pytest.param(p, id=p.stem) for p in PROGRAMS])
def test_program_is_clean_at_its_own_size(path: Path) -> None:
    source = read_source(path)
    assert check_program(source, Options()) == ()
    assert format_program(parse(source)) == source.text


def test_every_program_has_a_family_and_a_map() -> None:
    used = set(families().FAMILIES)
    assert used == {path.stem for path in PROGRAMS}
    assert used == {path.stem for path in (ROOT / "examples" / "families").glob("*.map")}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(families().FAMILIES))
def test_logits_are_those_of_the_published_model(name: str) -> None:
    pytest.importorskip("transformers")
    theirs = families().published(name)
    ours, imported = families().compiled(name, theirs)
    assert imported.artifact.warnings == ()
    tokens = torch.randint(families().VOCAB, (2, 37), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(input_ids=tokens, use_cache=False).logits
        cache = ours.init_cache(2, 37)
        pieces = [ours(piece, cache=cache) for piece in tokens.split([20, 9, *[1] * 8], dim=1)]
    for logits in (ours(tokens), torch.cat(pieces, dim=1)):
        difference = float((logits - expected).abs().max() / expected.abs().max())
        assert difference < families().FAMILIES[name].tolerance


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", list(families().FAMILIES))
def test_graphs(name: str) -> None:
    """torch.compile(fullgraph) and torch.export at the small sizes of the published model."""
    pytest.importorskip("transformers")
    ours, _ = families().compiled(name, families().published(name))
    check(ours.train(), atol=5 * families().FAMILIES[name].tolerance)  # logits are about 5
