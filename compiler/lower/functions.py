"""The module-level functions that a generated file needs, each once.

Owns: their names and which are shared. Refuses: their text (templates).
"""

from __future__ import annotations

import re
from dataclasses import replace

from starc.compiler.kernel_attention import AttentionPlan, FusedAttention
from starc.compiler.kernel_attention_step import step_of
from starc.compiler.kernel_long_convolution import LongConvolution
from starc.compiler.kernel_plan import KernelPlan
from starc.compiler.naming import Names
from starc.compiler.plan import FunctionPlan, MixerPlan, ModuleClass
from starc.compiler.support import NAMES as SUPPORT_NAMES

PYTHON_NAMES = frozenset(
    """torch nn F math os Tensor self x super tokens targets logits Model main DIGEST CONFIG SOURCE
    losses KERNELS define_op save_inputs common_dtype as_rows causal_filter annotations
    PRECISION runs_kernels product_dtype save_results with_none at_border add_decayed_scores
    save_with recurrence_gradient cached_slices_of_chunks passed_on cached_rows
    add_decayed_gradients invert_unit of_last_steps takes_steps
    checkpoint range len min max int float bool str tuple list dict set print sum zip hasattr
    getattr isinstance any all type SystemExit enumerate ValueError Callable Iterator
    cache start batch like object property staticmethod ImportError tl
    serves tile_for shared_memory product_precision as_operands strides_of per_head per_token
    longest_product fewer_heads spread save_all splits_for triton
    segment_of sum_of_parts PLACES sort_assignments tiles_of weights_of add_parts""".split()
)
"""Names with a meaning of their own in generated code."""

FUNCTION_NAMES = SUPPORT_NAMES | frozenset(
    """attention banded_attention linear_attention scalar_recurrence diagonal_recurrence
    signed_recurrence delta_recurrence dplr_recurrence read_before transition_matrix scan
    short_convolution depthwise_convolution long_convolution convolved
    rotary_tables rotate l2norm shift visible diagonal_matrix select
    decay_scores distances relative_scores standardize softmax_with_sink masked_attention
    latent_step taps_of seen History Window Delay Cache draw
    implicit_filter semi_separable_matrix toeplitz_matrix linear embedding sinusoidal rope
    headwise grouped_dense causal_convolution RMSNorm RMSNormFunction Norm L2Norm LowRankLinear
    GroupedLinear HeadwiseLinear CausalConvolution TapSum GroupedConvolution ImplicitFilter
    quick_gelu taylor stabilized top_by positions modal_convolution SSMFilter Polynomial Hedgehog
    with_skip Block Experts route balance retrieve top Loop HyperConnection DynamicHyperConnection
    DepthAverage WeightedReadout AttentionReadout Unit""".split()
)
"""Names of module-level functions; a number may follow (attention_2)."""

_KERNEL = re.compile(
    r"(body_|launch_|packed_)*((input_|output_)?gated|causal)_(product|convolution)\w*\d+\w*"
    r"|(body_|launch_|scores_)?(fused|latent)_\w*attention_\d+\w*"
    r"|([a-z]+_)?long_convolution_\d+\w*"
    r"|(Packed)?((Input|Output)?Gated|Causal)(Product|Convolution)\w*\d+"
    r"|(body_|launch_|shapes_|save_|gradient_|chunks_|tokens_|launch_tokens_)?cross_entropy_\d+\w*"
    r"|(body_|launch_|shapes_|save_|gradient_)?(interleaved_)?rotary_\d+\w*"
    r"|(body_|launch_|shapes_|save_|gradient_)?(add_)?[a-z_]*(rms|layer|l2)_norm_\d+\w*"
    r"|(body_|launch_|shapes_|save_|gradient_|tile_|grid_)?[a-z0-9_]+_experts_\d+_\d+_\w+"
    r"|(body_|launch_)?gather_\d+_\w+"
    r"|(body_|launch_|kernel_|written_)?(linear_attention|[a-z]+_recurrence|scan)(_\d+)?"
    r"(_(states|scores|outputs|keys|step|backward|solve|factors|pairs))?"
)


def is_reserved(name: str) -> bool:
    """Whether a local or a class of this name would hide something of a generated file."""
    base = re.sub(r"_\d+$", "", name)
    return name in PYTHON_NAMES or base in FUNCTION_NAMES or bool(_KERNEL.fullmatch(name))


class Functions:
    """Collects function plans; plans that differ in nothing but their name are one function."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self._plans: dict[MixerPlan | FunctionPlan, MixerPlan | FunctionPlan] = {}
        self.names = Names(PYTHON_NAMES | SUPPORT_NAMES)
        self._kernels: dict[KernelPlan, None] = {}
        self._experts: dict[ModuleClass, ModuleClass] = {}

    def kernel(self, plan: KernelPlan) -> str:
        """The name of the function that dispatches to a kernel."""
        if isinstance(plan, AttentionPlan):  # whose name does not say everything
            names = {known.name for known in self._kernels}
            while plan not in self._kernels and plan.name in names:
                plan = replace(plan, variant=plan.variant + 1)
        if isinstance(plan, LongConvolution):
            plan = plan.joined(self._kernels)
            self._kernels = {x: None for x in self._kernels if x.name != plan.name}
        self._kernels.setdefault(plan)
        if isinstance(plan, FusedAttention) and plan.steps:
            self._kernels.setdefault(step_of(plan))
        return plan.name

    @property
    def kernels(self) -> tuple[KernelPlan, ...]:
        return tuple(self._kernels)

    def expert(self, plan: ModuleClass, wanted: str) -> str:
        """The name of the class of an expert; `plan` has none yet."""
        if plan not in self._experts:
            self._experts[plan] = replace(plan, name=self.names.take(wanted))
        return self._experts[plan].name

    @property
    def experts(self) -> tuple[ModuleClass, ...]:
        return tuple(self._experts.values())

    def mixer(self, plan: MixerPlan) -> str:
        """The name of the function for a mixer plan, whatever name the plan came with."""
        key = replace(plan, name=plan.template)
        if key not in self._plans:
            self._plans[key] = replace(plan, name=self.names.take(plan.template))
        return self._plans[key].name

    def function(self, template: str, wanted: str = "", **values: object) -> str:
        """The name of a helper; `template` is a file of templates/function, or module/... for a
        class. A support function keeps the name that templates call it by."""
        if "/" not in template:
            template = f"function/{template}"
        key = FunctionPlan(template, "", tuple(sorted(values.items())))
        if key not in self._plans:
            name = wanted or template.rpartition("/")[2]
            name = name if name in SUPPORT_NAMES else self.names.take(name)
            self._plans[key] = FunctionPlan(template, name, key.values)
        return self._plans[key].name

    @property
    def plans(self) -> tuple[MixerPlan | FunctionPlan, ...]:
        return tuple(self._plans.values())
