"""Plans of kernels: tiles, names, the order of sections, and the text that their templates give."""

from __future__ import annotations

import re
from pathlib import Path

import black
import pytest
from hypothesis import given
from hypothesis import strategies as st

import starc.compiler.kernel_plan as kernel_plan
from starc.compiler.kernel_plan import (
    MAX_TAPS,
    GatedConvolution,
    GatedProduct,
    KernelPlan,
    sections,
)
from starc.grammar.errors import InternalError
from starc.templates import render

DIGEST = "0123456789abcdef"
TEMPLATES = Path(kernel_plan.__file__).parent.parent / "templates"

products = st.builds(
    GatedProduct,
    digest=st.just(DIGEST),
    activation=st.sampled_from(["identity", "silu", "gelu_tanh"]),
    channels=st.integers(1, 5000),
    packed=st.booleans(),
)
convolutions = st.builds(
    GatedConvolution,
    digest=st.just(DIGEST),
    channels=st.integers(1, 5000),
    taps=st.integers(1, MAX_TAPS),
    output_gate=st.booleans(),
    input_gate=st.booleans(),
)
plans = st.one_of(products, convolutions)


@given(plans)
def test_tiles_cover_the_channels(plan: GatedProduct | GatedConvolution) -> None:
    tile = plan.tile
    assert tile.columns & (tile.columns - 1) == 0  # Triton's ranges are powers of two
    assert tile.rows & (tile.rows - 1) == 0
    assert (plan.column_tiles - 1) * tile.columns < plan.channels
    assert tile.ragged == (plan.column_tiles * tile.columns != plan.channels)
    if plan.channels % 64 == 0:
        assert not tile.ragged
        assert tile.columns >= 64


@given(plans, plans)
def test_names_tell_plans_apart(one: KernelPlan, other: KernelPlan) -> None:
    assert (one == other) == (one.name == other.name)
    assert (one == other) == (one.class_name == other.class_name)
    assert one.name.isidentifier()
    assert one.class_name.isidentifier()


def test_sections_come_once_and_in_order() -> None:
    product = GatedProduct(digest=DIGEST, activation="silu", channels=8)
    wide = GatedConvolution(digest=DIGEST, channels=8, taps=3)
    narrow = GatedConvolution(digest=DIGEST, channels=4, taps=3)
    assert list(sections([])) == []
    assert list(sections([product, wide, product, narrow, wide])) == [
        ("kernel/header.py.j2", None),
        ("kernel/causal_filter.py.j2", None),
        ("kernel/gated_product.py.j2", product),
        ("kernel/gated_convolution.py.j2", wide),
        ("kernel/gated_convolution.py.j2", narrow),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"digest": "0123"}, "'0123' is not a digest"),
        ({"digest": "x' + 'y12345"}, "is not a digest"),
        ({"channels": 0}, "no channels"),
        ({"taps": MAX_TAPS + 1}, "takes 1 to 16 taps"),
        ({"taps": 0}, "takes 1 to 16 taps"),
        ({"taps": 5, "activation": "silu"}, "takes 1 to 4 taps"),
        ({"activation": "softmax"}, "no kernel knows the nonlinearity"),
        ({"packed": True, "output_gate": False, "input_gate": False}, "nothing to be packed with"),
    ],
)
def test_impossible_plans_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InternalError, match=re.escape(message)):
        GatedConvolution(**{"digest": DIGEST, "channels": 8, "taps": 3, **change})  # type: ignore[arg-type]


def test_unknown_nonlinearity_is_refused() -> None:
    with pytest.raises(InternalError, match="no kernel knows the nonlinearity"):
        GatedProduct(digest=DIGEST, activation="softmax", channels=8)


@pytest.mark.parametrize("plan_class", [GatedProduct, GatedConvolution])
def test_templates_name_their_context(plan_class: type[KernelPlan]) -> None:
    first_line = (TEMPLATES / plan_class.template).read_text().splitlines()[0]
    assert (
        first_line == f"{{# context: kernel: {plan_class.__name__} of compiler/kernel_plan.py #}}"
    )


@pytest.mark.parametrize("name", ["header", "causal_filter"])
def test_fixed_sections_stand_formatted(name: str) -> None:
    """Text that is the same in every file is not formatted anew each time."""
    text = render(f"kernel/{name}.py.j2").strip("\n") + "\n"
    assert black.format_str(text, mode=black.Mode(line_length=100)) == text
    assert max(map(len, text.splitlines())) <= 100


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("channels", [60, 768])
def test_masked_loads_say_what_masked_lanes_hold(channels: int, packed: bool) -> None:
    """Without `other` they hold 0 in the interpreter and anything on a GPU."""
    for plan in (
        GatedProduct(digest=DIGEST, activation="silu", channels=channels, packed=packed),
        GatedConvolution(digest=DIGEST, channels=channels, taps=3, packed=packed),
    ):
        text = render(plan.template, kernel=plan)
        loads = [line for line in text.splitlines() if "tl.load(" in line]
        assert loads
        assert [line for line in loads if "mask=" in line and "other=" not in line] == []
