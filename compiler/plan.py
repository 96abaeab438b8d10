"""Plans: everything that templates are told, decided beforehand by compiler/lower.

Owns: the shape of template inputs. Refuses: decisions (lower makes them) and text (templates do).
"""

from __future__ import annotations

from dataclasses import dataclass

from starc.compiler.kernel_plan import KernelPlan


@dataclass(frozen=True)
class MixerPlan:
    """One function of the generated file: T(x) V for one structure at one set of sizes.

    The function takes tokens-first tensors, in this order and only those it has:
    C (B, T, c_heads, channels), A (B, T, a_heads, a_channels), B (B, T, b_heads, channels),
    V (B, T, v_heads, v_channels), and gives (B, T, heads, v_channels). Head counts divide
    `heads`; head h reads head h // (heads / count) of an operand with fewer. `channels` is N,
    the channels that C and B share; `a_channels` is 1 or N, 0 where there is no A. `template` is a
    file of templates/mixer without its ending. beta of the delta rule has `beta_heads`; a and b of
    low-rank transitions have `left_heads` and `right_heads`, and `steps` for every token. `kernel`
    is the function that does the same on GPUs, if there is one; `kernels` says that the file has
    kernels of recurrences for it, and `factored` that A comes as A (B, T, heads, 1) times a slope
    (heads, channels).
    """

    template: str
    name: str
    heads: int
    channels: int
    c_heads: int
    b_heads: int
    v_heads: int
    v_channels: int
    a_heads: int = 0
    a_channels: int = 0
    scale: float = 1.0
    floor: float | None = None
    band: int = 0
    logarithmic: bool = True
    chunk: int = 64
    beta_heads: int = 0
    left_heads: int = 0
    right_heads: int = 0
    steps: int = 1
    kernel: str = ""
    kernels: bool = False
    factored: bool = False


@dataclass(frozen=True)
class FunctionPlan:
    """A helper of the generated file that is not a mixer: `template` of templates/function, and
    its values."""

    template: str
    name: str
    values: tuple[tuple[str, object], ...] = ()


@dataclass(frozen=True)
class Line:
    """One statement of generated code and the comment after it."""

    text: str
    comment: str = ""


@dataclass(frozen=True)
class ModuleClass:
    """A class of the generated file: an operator or a block of units.

    `cache` lists (name, expression over batch, length and like) of what it keeps while decoding,
    `onto_stream` the projections that the output of a unit is the sum of.
    """

    name: str
    doc: tuple[str, ...]
    init: tuple[Line, ...]
    arguments: tuple[str, ...]
    forward: tuple[Line, ...]
    returns: str
    result: str = "Tensor"
    base: str = "nn.Module"
    cache: tuple[tuple[str, str], ...] | None = None
    onto_stream: tuple[str, ...] = ()


@dataclass(frozen=True)
class ModelPlan:
    """The class Model: embedding, units, read-out. `logits` is an expression of the stream x,
    `loss` one of x and targets where that does without logits;
    `losses` says that units add to the loss, `longest` how many tokens its weights allow."""

    doc: tuple[str, ...]
    init: tuple[Line, ...]
    forward: tuple[Line, ...]
    logits: str
    width: int
    vocab: int
    loss: str = ""
    losses: bool = False
    cache: tuple[tuple[str, str], ...] = ()
    longest: int | None = None
    causal: bool = True


@dataclass(frozen=True)
class FilePlan:
    """A whole generated file."""

    title: str
    digest: str
    config: tuple[tuple[str, object], ...]
    source: str
    kernels: tuple[KernelPlan, ...]
    functions: tuple[FunctionPlan | MixerPlan, ...]
    classes: tuple[ModuleClass, ...]
    model: ModelPlan
