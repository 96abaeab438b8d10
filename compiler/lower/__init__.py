"""Lowering: every decision about the generated file, as frozen plans.

Owns: the order of parts and what the file says about itself. Refuses: text of any length
(templates).
"""

from __future__ import annotations

from starc.compiler.inventory import model_parameters
from starc.compiler.ir import Model
from starc.compiler.lower.functions import Functions
from starc.compiler.lower.model import lower_model
from starc.compiler.options import VERSION
from starc.compiler.plan import FilePlan


def lower(model: Model, digest: str, source: str) -> FilePlan:
    """The plan of the generated file of a model that went through the passes."""
    functions = Functions(digest)
    classes, plan = lower_model(model, functions)
    parameters = sum(p.size for p in model_parameters(model).values() if p.learned)
    config = (
        ("name", model.name),
        ("vocab", model.vocab),
        ("width", model.width),
        ("context", model.context),
        ("depth", model.depth),
        ("parameters", parameters),
        *(() if model.causal else (("causal", False),)),
    )
    return FilePlan(
        title=f"{model.name}: a model of {parameters:,} parameters, written by starc {VERSION}.",
        digest=digest,
        config=config,
        source=source,
        functions=functions.plans,
        kernels=functions.kernels,
        classes=classes,
        model=plan,
    )
