"""What the functions of a generated file call: support functions, so that a file holds those it uses.

Owns: which template of templates/function calls which others, given the head counts of a plan.
Refuses: text. A test compares this table with what the templates really call.

Support functions have no values and keep their template's name, since other templates call them by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from starc.compiler.plan import FunctionPlan, MixerPlan

CHUNKS = ("wide", "to_chunks", "from_chunks")

SUPPORT: dict[str, tuple[str, ...]] = {
    "attention": (),
    "banded_attention": (),
    "linear_attention": CHUNKS,
    "scalar_recurrence": (*CHUNKS, "segment_decays", "pass_states"),
    "diagonal_recurrence": (*CHUNKS, "diagonal_scores", "pass_states"),
    "signed_recurrence": (*CHUNKS, "signed_scores", "pass_states"),
    "short_convolution": ("shift",),
    "long_convolution": ("wide",),
}
"""Template to the support functions that it always calls, in the order in which they should stand."""


def _linear(p: MixerPlan) -> Iterable[str]:
    if len({p.c_heads, p.b_heads, p.v_heads}) > 1:
        yield "grouped_matmul"


def _scalar(p: MixerPlan) -> Iterable[str]:
    if len({p.c_heads, p.b_heads, p.v_heads, p.a_heads}) > 1:
        scores, values = max(p.c_heads, p.b_heads), max(p.a_heads, p.v_heads)
        states = max(values, p.b_heads)
        products = ((scores, p.a_heads), (p.a_heads, p.v_heads), (p.a_heads, p.heads))
        if any(x != y and 1 not in (x, y) for x, y in products):
            yield "grouped_product"
        matmuls = (
            (p.c_heads, p.b_heads),
            (p.b_heads, values),
            (max(scores, p.a_heads), p.v_heads),
            (p.c_heads, states),
        )
        if any(x != y for x, y in matmuls):
            yield "grouped_matmul"


def _diagonal(p: MixerPlan) -> Iterable[str]:
    if max(p.c_heads, p.a_heads, p.b_heads) != p.v_heads:
        yield "grouped_matmul"


_BY_HEADS: dict[str, Callable[[MixerPlan], Iterable[str]]] = {
    "linear_attention": _linear,
    "scalar_recurrence": _scalar,
    "diagonal_recurrence": _diagonal,
    "signed_recurrence": _diagonal,
}


def required(plan: MixerPlan | FunctionPlan) -> tuple[str, ...]:
    """The support functions that a plan's text needs, directly or not; what is called stands first."""
    found: dict[str, None] = {}

    def add(name: str) -> None:
        for needed in SUPPORT.get(name, ()):
            add(needed)
        found.setdefault(name)

    for name in SUPPORT.get(plan.template, ()):
        add(name)
    if isinstance(plan, MixerPlan) and plan.template in _BY_HEADS:
        for name in _BY_HEADS[plan.template](plan):
            add(name)
    return tuple(found)
