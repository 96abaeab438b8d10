"""The module-level functions that a generated file needs, each once.

Owns: their names and which are shared. Refuses: their text (templates).
"""

from __future__ import annotations

from dataclasses import replace

from starc.compiler.kernel_plan import KernelPlan
from starc.compiler.naming import Names
from starc.compiler.plan import FunctionPlan, MixerPlan

PYTHON_NAMES = frozenset(
    """torch nn F math Tensor self x super tokens targets logits Model Block DIGEST CONFIG SOURCE
    range len min max int float tuple list dict print linear tl triton os""".split()
)
"""Names with a meaning of their own in generated code."""


class Functions:
    """Collects function plans; plans that differ in nothing but their name are one function."""

    def __init__(self, digest: str) -> None:
        self.digest = digest
        self._plans: dict[MixerPlan | FunctionPlan, MixerPlan | FunctionPlan] = {}
        self.names = Names(PYTHON_NAMES)
        self._kernels: dict[KernelPlan, str] = {}

    def kernel(self, plan: KernelPlan) -> str:
        """The name of the function that dispatches to a kernel."""
        if plan not in self._kernels:
            self._kernels[plan] = self.names.take(plan.name)
        return self._kernels[plan]

    @property
    def kernels(self) -> tuple[KernelPlan, ...]:
        return tuple(self._kernels)

    def mixer(self, plan: MixerPlan) -> str:
        """The name of the function for a mixer plan; plan.name is what it would like to be called."""
        key = replace(plan, name=plan.template)
        if key not in self._plans:
            self._plans[key] = replace(plan, name=self.names.take(plan.template))
        return self._plans[key].name

    def function(self, template: str, wanted: str = "", **values: object) -> str:
        """The name of a helper; `template` is a file of templates/function, or module/... for a class."""
        if "/" not in template:
            template = f"function/{template}"
        key = FunctionPlan(template, "", tuple(sorted(values.items())))
        if key not in self._plans:
            name = self.names.take(wanted or template.rpartition("/")[2])
            self._plans[key] = FunctionPlan(template, name, key.values)
        return self._plans[key].name

    @property
    def plans(self) -> tuple[MixerPlan | FunctionPlan, ...]:
        return tuple(self._plans.values())
