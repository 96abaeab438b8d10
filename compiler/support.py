"""Support functions: what the functions of a generated file call, so that it holds those it uses.

Owns: which template of templates/function calls which others, given the head counts of a plan.
Refuses: text. A test compares this table with what the templates really call.

Support functions have no values, and the name of their template: other templates call them by it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from starc.compiler.plan import FunctionPlan, MixerPlan

CHUNKS = ("wide", "to_chunks", "from_chunks")

STEPS = ("step", "resume")

SUPPORT: dict[str, tuple[str, ...]] = {
    # mixers
    "banded_attention": ("overlapping", "first_tokens"),
    "linear_attention": (*CHUNKS, *STEPS),
    "scalar_recurrence": (*CHUNKS, "ScalarRecurrence", *STEPS, "decayed"),
    "diagonal_recurrence": (*CHUNKS, "DiagonalRecurrence", *STEPS, "decayed"),
    "signed_recurrence": (*CHUNKS, "signed_scores", "pass_states", *STEPS, "multiplied"),
    "scan": (*CHUNKS, *STEPS),
    "delta_recurrence": (*CHUNKS, "chain_states", "delta_step"),
    "dplr_recurrence": (*CHUNKS, "chain_states", "dplr_step"),
    "read_before": ("wide", "as_heads", "delayed"),
    # functions that lowering calls
    "shift": ("delayed",),
    "short_convolution": ("transformed", "LagSum"),
    "rotate": ("transformed",),
    "rms_norm": ("transformed",),
    "causal_convolution": ("transformed",),
    "experts": ("transformed",),
    "long_convolution": ("wide",),
    "implicit_filter": ("wide",),
    "ssm_filter": ("wide", "first_tokens"),
    "modal_convolution": ("wide",),
    "decay_scores": ("wide",),
    "semi_separable_matrix": ("wide", "to_chunks"),
    # support functions
    "overlapping": ("transformed", "OverlappingBlocks"),
    "step": ("as_heads",),
    "resume": ("as_heads",),
    "ScalarRecurrence": ("over_batch", "carry", "sums_from_here"),
    "DiagonalRecurrence": (
        "over_batch",
        "diagonal_scores",
        "add_diagonal_gradients",
        "carry",
        "sums_from_here",
    ),
    "diagonal_scores": ("lagged", "lag_entries", "neighbours", "corner_entries"),
    "add_diagonal_gradients": ("lagged", "lag_entries", "neighbours", "corner_entries"),
    "DiagonalScores": ("over_batch", "diagonal_scores", "add_diagonal_gradients"),
    "from_chunks": ("first_tokens",),
    "carry": ("pass_states",),
    "pass_states": ("doublings", "delayed"),
    "chain_states": ("doublings", "delayed", "StateChain"),
    "signed_scores": ("join_blocks",),
    "StateChain": ("over_batch",),
    "DecayScan": ("over_batch", "carry"),
    "SignedScan": ("over_batch", "carry"),
}
"""Template to the support functions that it always calls; one that is not here calls none."""

NAMES = frozenset(
    """wide to_chunks from_chunks grouped_matmul pass_states carry sums_from_here ScalarRecurrence
    DiagonalRecurrence diagonal_scores add_diagonal_gradients lagged lag_entries neighbours
    corner_entries signed_scores join_blocks LagSum DecayScan SignedScan
    HalfRotation InterleavedRotation StateChain chain_states DiagonalScores
    step delta_step dplr_step resume as_heads decayed multiplied
    doublings delayed first_tokens
    transformed over_batch overlapping OverlappingBlocks""".split()
)
"""All support functions: names that nothing else in a generated file may take."""


def _linear(p: MixerPlan) -> Iterable[str]:
    if len({p.c_heads, p.b_heads, p.v_heads}) > 1:
        yield "grouped_matmul"


def _signed(p: MixerPlan) -> Iterable[str]:
    if max(p.c_heads, p.a_heads, p.b_heads) != p.v_heads:
        yield "grouped_matmul"


def _scan(p: MixerPlan) -> Iterable[str]:
    yield from ("DecayScan", "decayed") if p.logarithmic else ("SignedScan", "multiplied")


def _structured(p: MixerPlan) -> Iterable[str]:
    if p.a_channels and not p.logarithmic:
        yield "signed_scores"
    elif p.a_channels > 1:
        yield "DiagonalScores"


_BY_PLAN: dict[str, Callable[[MixerPlan], Iterable[str]]] = {
    "linear_attention": _linear,
    "signed_recurrence": _signed,
    "scan": _scan,
    "delta_recurrence": _structured,
    "dplr_recurrence": _structured,
}


def required(plan: MixerPlan | FunctionPlan) -> tuple[str, ...]:
    """The support functions that a plan's text needs, directly or not, what is called first."""
    found: dict[str, None] = {}

    def add(names: Iterable[str]) -> None:
        for name in names:
            add(SUPPORT.get(name, ()))
            found.setdefault(name)

    template = plan.template.rpartition("/")[2]
    add(SUPPORT.get(template, ()))
    if isinstance(plan, MixerPlan):
        if template in _BY_PLAN:
            add(_BY_PLAN[template](plan))
    else:
        values = dict(plan.values)
        if template == "semi_separable_matrix":
            add(["diagonal_scores" if values["logarithmic"] else "signed_scores"])
        elif template == "masked_attention" and (values["terms"] or values["sink"]):
            add(["transformed"])
        elif template == "rotate":
            add(["HalfRotation" if values["pairs"] == "half" else "InterleavedRotation"])
    return tuple(found)
