"""Mixers as rendered, against T written out in float64: outputs, gradients, text."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from starc.compiler.plan import MixerPlan
from tests.templates.generated import load

LENGTHS = (1, 2, 63, 130)
DTYPES = torch.float64, torch.float32
N, P = 8, 6
Mixer = Callable[..., Tensor]


def plan(template: str, c: int, b: int, v: int, a: int = 0, **changes: object) -> MixerPlan:
    """A plan of small sizes with the given head counts."""
    given: dict[str, object] = {
        "channels": N,
        "v_channels": 1 if template == "scan" else P,
        "a_channels": 1 if a else 0,
        "chunk": 16,
        **changes,
    }
    return MixerPlan(
        template=template,
        name=template,
        heads=max(c, b, v, a),
        c_heads=c,
        b_heads=b,
        v_heads=v,
        a_heads=a,
        **given,  # type: ignore[arg-type]
    )


def draw(p: MixerPlan, length: int, decay: str = "") -> dict[str, Tensor]:
    """Operands in float64, in the order of the arguments."""
    torch.manual_seed(length)
    x = {"C": torch.randn(2, length, p.c_heads, p.channels, dtype=torch.float64)}
    if p.a_heads:
        x["A"] = DECAYS[decay](torch.rand(2, length, p.a_heads, p.a_channels, dtype=torch.float64))
    x["B"] = torch.randn(2, length, p.b_heads, p.channels, dtype=torch.float64)
    x["V"] = torch.randn(2, length, p.v_heads, p.v_channels, dtype=torch.float64)
    return x


DECAYS: dict[str, Callable[[Tensor], Tensor]] = {
    # logarithms of decays
    "mild": lambda u: -0.2 * u,
    "none": torch.zeros_like,
    "strong": lambda u: -50 * u,
    "cut": lambda u: torch.where(u < 0.1, -50.0, -0.01 * u),
    "growth": lambda u: 0.1 * u - 0.03,
    # decays
    "signed": lambda u: 2 * u - 1,
    "zeros": lambda u: torch.where(u < 0.2, 0.0, 2 * u - 1),
    "signs": lambda u: torch.where(u < 0.5, -1.0, 1.0),
}
LOGARITHMS = ("mild", "none", "strong", "cut", "growth")
SIGNED = ("signed", "zeros", "signs")


def written_out(p: MixerPlan, x: dict[str, Tensor]) -> Tensor:
    """T(x) V by its definition: T entry by entry as (batch, heads, T, T), then one product."""
    c, b, v = (x[k].repeat_interleave(p.heads // x[k].shape[2], dim=2) for k in "CBV")
    length = c.shape[1]
    i, j = torch.arange(length)[:, None], torch.arange(length)
    visible = (j <= i) & (i - j < p.band) if p.band else j <= i
    if "A" in x:
        a = x["A"].exp() if p.logarithmic else x["A"]
        a = a.repeat_interleave(p.heads // a.shape[2], dim=2)
        rows, reached = [], b[:, :0]
        for t in range(length):  # reached: A_t ... A_{j+1} B_j for j <= t
            reached = torch.cat([reached * a[:, t : t + 1], b[:, t : t + 1]], dim=1)
            row = torch.einsum("bhn,bjhn->bhj", c[:, t], reached)
            rows.append(nn.functional.pad(row, (0, length - t - 1)))
        scores = torch.stack(rows, dim=2)
    else:
        scores = p.scale * torch.einsum("bihn,bjhn->bhij", c, b)
        if p.template.endswith("attention") and p.template != "linear_attention":
            scores = scores.masked_fill(~visible, -math.inf).softmax(-1)
        else:
            scores = scores * visible
    if p.floor is not None:
        scores = scores / scores.sum(-1, keepdim=True).abs().clamp(min=p.floor)
    return torch.einsum("bhij,bjhp->bihp", scores, v)


def check(p: MixerPlan, length: int, decay: str = "", positive: bool = False) -> None:
    """A rendered mixer in float64 and float32 against its definition."""
    x = draw(p, length, decay)
    if positive:  # rows that cannot sum to zero
        x["C"], x["B"] = x["C"].abs() + 0.1, x["B"].abs() + 0.1

    def reference(*operands: Tensor) -> Tensor:
        return written_out(p, dict(zip(x, operands, strict=True)))

    compare(getattr(load(p), p.name), reference, x)


def compare(f: Mixer, reference: Mixer, x: dict[str, Tensor]) -> None:
    """Outputs and all gradients of f, by name, against the reference in float64."""
    exact = [t.float().double().requires_grad_() for t in x.values()]
    z = reference(*exact)
    direction = torch.randn_like(z)
    wanted = [z, *_gradients(z, exact, direction)]
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        own = [t.detach().to(dtype).requires_grad_() for t in exact]
        y = f(*own)
        assert y.dtype == dtype
        assert y.shape == z.shape
        found = [y, *_gradients(y, own, direction.to(dtype))]
        for name, got, want in zip(("y", *x), found, wanted, strict=True):
            error = (got.double() - want).abs().max() / (want.abs().max() + 1e-2)
            assert error < tolerance, (name, dtype, error.item())


def _gradients(y: Tensor, x: Sequence[Tensor], direction: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(y, x, direction, allow_unused=True, materialize_grads=True)


GROUPS = ((2, 2, 2), (4, 2, 2), (1, 1, 4), (4, 1, 4), (2, 4, 4), (4, 4, 2), (4, 1, 2), (1, 4, 1))
"""Head counts of C, B and V."""


@pytest.mark.parametrize("heads", GROUPS)
@pytest.mark.parametrize("band", [0, 16, 64])
def test_attention(heads: tuple[int, int, int], band: int):
    name = "banded_attention" if band else "attention"
    for length in LENGTHS:
        for width in (P, N, 2 * N):  # V narrower than C and B, as wide, wider
            check(plan(name, *heads, scale=0.25, band=band, v_channels=width), length)


@pytest.mark.parametrize("heads", GROUPS)
@pytest.mark.parametrize("band", [0, 1, 16])
def test_attention_from_a_history(heads: tuple[int, int, int], band: int):
    """The last queries alone, with the keys that they see or with more, get the same answers."""
    p = plan("banded_attention" if band else "attention", *heads, scale=0.25, band=band)
    f = getattr(load(p), p.name)
    for length in (2, 40, 63):
        x = draw(p, length)
        whole = f(*x.values())
        for new in (1, 2, 30):
            if new > length:
                continue
            for keys in {length, min(length, new + max(band - 1, 0))} if band else {length}:
                part = f(x["C"][:, -new:], x["B"][:, -keys:], x["V"][:, -keys:])
                torch.testing.assert_close(part, whole[:, -new:])


def test_banded_attention_keeps_keys_and_values_once():
    """For the backward pass blocks that overlap are views, and V leaves the rest of its tensor."""
    p = plan("banded_attention", 4, 4, 4, scale=0.25, band=16, v_channels=N)
    packed = torch.randn(1, 160, 4, 3 * N, requires_grad=True)
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        C, B, V = packed.split(N, dim=-1)
        y = getattr(load(p), p.name)(C, B, V)
    one = y.numel() * y.element_size()
    assert sum(kept.values()) < 4.8 * one  # C, B, V, y, and the sums and masks of softmax


@pytest.mark.parametrize("heads", GROUPS)
@pytest.mark.parametrize("floor", [None, 1.0])
@pytest.mark.parametrize("scale", [1.0, -0.3])
def test_linear_attention(heads: tuple[int, int, int], floor: float | None, scale: float):
    for length in LENGTHS:
        p = plan("linear_attention", *heads, scale=scale, floor=floor)
        check(p, length, positive=floor is not None)


STATE_GROUPS = (
    *((c, b, v, a) for (c, b, v), a in itertools.product(GROUPS[:4], (1, 2, 4))),
    (2, 4, 4, 1),
    (4, 4, 2, 2),
    (4, 1, 2, 4),
    (1, 1, 1, 4),
)
"""Head counts of C, B, V and A."""


@pytest.mark.parametrize("heads", STATE_GROUPS)
@pytest.mark.parametrize(
    "template", ["scalar_recurrence", "diagonal_recurrence", "signed_recurrence"]
)
def test_recurrence(template: str, heads: tuple[int, int, int, int]):
    place = STATE_GROUPS.index(heads)
    signed = template == "signed_recurrence"
    p = plan(
        template,
        *heads,
        a_channels=1 if template == "scalar_recurrence" or (signed and place % 2) else N,
        logarithmic=not signed,
        floor=1.0 if place % 3 == 0 else None,
    )
    kinds = SIGNED if signed else LOGARITHMS
    for length in (2, 63):
        check(p, length, kinds[place % len(kinds)], positive=p.floor is not None)


@pytest.mark.parametrize("decay", [*LOGARITHMS, *SIGNED])
@pytest.mark.parametrize("channels", [1, N])
def test_every_kind_of_decay(decay: str, channels: int):
    logarithmic = decay in LOGARITHMS
    name = "signed_recurrence"
    if logarithmic:
        name = "scalar_recurrence" if channels == 1 else "diagonal_recurrence"
    more: dict[str, object] = {"logarithmic": logarithmic, "a_channels": channels}
    for length in LENGTHS:
        check(plan(name, 2, 2, 2, 2, **more), length, decay)
        check(plan("scan", 1, 1, 6, 6, **more), length, decay)


@pytest.mark.parametrize("heads", [(6, 1, 6, 1), (1, 6, 6, 6), (2, 3, 6, 3), (6, 6, 1, 2)])
@pytest.mark.parametrize("channels", [1, N])
@pytest.mark.parametrize("logarithmic", [True, False])
def test_scan(heads: tuple[int, int, int, int], channels: int, logarithmic: bool):
    p = plan("scan", *heads, a_channels=channels, logarithmic=logarithmic)
    for length in (1, 63):
        check(p, length, "mild" if logarithmic else "zeros")


ALL = (
    plan("attention", 4, 2, 2, scale=0.125),
    plan("attention", 2, 2, 4, scale=0.125),
    plan("banded_attention", 4, 2, 2, scale=0.125, band=16),
    plan("linear_attention", 2, 2, 2),
    plan("linear_attention", 4, 2, 1, floor=1e-6),
    plan("scalar_recurrence", 1, 1, 4, 4),
    plan("scalar_recurrence", 4, 2, 4, 1, floor=1.0),
    plan("diagonal_recurrence", 2, 2, 2, 2, a_channels=N),
    plan("diagonal_recurrence", 4, 1, 2, 4, a_channels=N, floor=1.0),
    plan("signed_recurrence", 2, 2, 2, 2, logarithmic=False),
    plan("signed_recurrence", 2, 2, 4, 1, a_channels=N, logarithmic=False, floor=1.0),
    plan("scan", 1, 1, 6, 6, a_channels=N),
    plan("scan", 3, 2, 6, 1, logarithmic=False),
)
"""Every template, with and without what depends on head counts."""


@pytest.mark.parametrize("p", ALL, ids=lambda p: f"{p.template}-{p.c_heads}{p.b_heads}{p.v_heads}")
def test_bfloat16_goes_in_and_out(p: MixerPlan):
    x = [t.bfloat16() for t in draw(p, 63, "mild" if p.logarithmic else "signed").values()]
    f = getattr(load(p), p.name)
    y = f(*x)
    assert y.dtype == torch.bfloat16
    assert_close = torch.testing.assert_close
    assert_close(y.float(), f(*(t.float() for t in x)), rtol=0.05, atol=0.05 * float(y.abs().max()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = f(*x[:-1], x[-1].float())  # float32 beside bfloat16, as a norm in autocast gives
    assert_close(mixed.float(), y.float(), rtol=0.05, atol=0.05 * float(y.abs().max()))


@pytest.mark.filterwarnings(
    "ignore:.*should not be instantiated:DeprecationWarning"
)  # dynamo's own
@pytest.mark.parametrize("p", {p.template: p for p in ALL}.values(), ids=lambda p: p.template)
def test_compiles_and_exports_as_one_graph(p: MixerPlan):
    p = replace(p, chunk=4)
    x = [t.float().requires_grad_() for t in draw(p, 18 if p.band else 9, "mild").values()]
    f = getattr(load(p), p.name)

    class Module(nn.Module):
        def forward(self, *operands: Tensor) -> Tensor:
            return f(*operands)

    y = f(*x)
    direction = torch.randn_like(y)
    torch._dynamo.reset()
    compiled = torch.compile(f, fullgraph=True, backend="aot_eager")(*x)
    torch.testing.assert_close(compiled, y)
    for got, want in zip(
        _gradients(compiled, x, direction), _gradients(y, x, direction), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)
    exported = torch.export.export(Module(), tuple(t.detach() for t in x)).module()
    torch.testing.assert_close(exported(*x), y)


def test_float32_keeps_what_neighbours_differ_by():
    """Sums of log decays are large where most tokens forget: their differences stay exact."""
    p = plan("scalar_recurrence", 1, 1, 4, 4, chunk=64)
    operands = draw(p, 63, "mild")
    operands["A"][:, ::2] = -50.0
    exact, rounded = ([t.to(dtype) for t in operands.values()] for dtype in DTYPES)
    exact = [t.float().double().requires_grad_() for t in exact]
    rounded = [t.requires_grad_() for t in rounded]
    f = getattr(load(p), p.name)
    y, found = f(*exact), f(*rounded)
    slopes = [
        torch.autograd.grad((x**2).sum(), inputs) for x, inputs in ((y, exact), (found, rounded))
    ]
    for right, got in ((y.detach(), found.detach()), *zip(*slopes, strict=True)):
        assert float((got - right).abs().max() / right.abs().max()) < 2e-6
