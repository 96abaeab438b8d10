"""Names of generated attributes stay clear of everything torch.nn.Module owns."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from starc.compiler.naming import MODULE_ATTRIBUTES, Names, identifier


def test_the_list_of_module_attributes_is_complete() -> None:
    public = {name for name in dir(torch.nn.Module()) if not name.startswith("_")}
    assert public <= MODULE_ATTRIBUTES


@given(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True))
def test_any_name_becomes_a_safe_attribute(name: str) -> None:
    safe = identifier(name)
    module = torch.nn.Module()
    assert not hasattr(module, safe)
    assert safe.isidentifier()
    assert not safe.startswith("_")


def test_names_are_unique() -> None:
    names = Names()
    assert [names.take("a") for _ in range(3)] == ["a", "a_2", "a_3"]
    assert names.take("a_2") == "a_2_2"


def test_generated_files_name_the_version_of_the_package() -> None:
    import starc
    from starc.compiler.options import VERSION

    assert starc.__version__ == VERSION


def test_a_layer_takes_the_names_of_its_norms_too() -> None:
    names = Names()
    assert names.take("a_norm", ("_norm",)) == "a_norm"
    assert names.take("a", ("_norm",)) == "a_2"
