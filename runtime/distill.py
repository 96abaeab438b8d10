"""Long filters as short sums of exponentials, so that they decode with a state of fixed size.

Laughing Hyena (2310.18780) fits each filter by modes. Here the poles come from the shifts of the
filter's Hankel matrix (ESPRIT: Roy and Kailath 1989), at several spacings of the taps since a slow
mode shows only over many of them; weights by least squares; then both are refined by gradient.

Owns: the fit and its error. Refuses: programs and where filters are (starc/distilling.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

_ROWS = 96
_SLOWEST, _FASTEST = 1e-7, 30.0
"""Bounds on the decay of a mode per token: it never grows, and is gone after one step at most."""


@dataclass(frozen=True, eq=False)
class Modes:
    """Taps h_t = Re sum_n weight_n exp(rate_n t): complex tensors (lanes, modes)."""

    rate: Tensor
    weight: Tensor

    def taps(self, length: int) -> Tensor:
        """(lanes, length), as products of powers so that no (modes, length) is kept per lane."""
        steps = torch.arange(64)
        blocks = 64 * torch.arange((length + 63) // 64)
        inside = (self.rate[..., None] * steps).exp()
        before = self.weight[..., None] * (self.rate[..., None] * blocks).exp()
        taps = before.real.mT @ inside.real - before.imag.mT @ inside.imag
        return torch.flatten(taps, 1)[:, :length]

    def parameters(self) -> dict[str, Tensor]:
        """The parameters of an `ssm` filter with these taps, by their last names.

        One step is one unit of time, and C (exp(a) - 1) / a, which counts twice, is the weight.
        """
        c = self.weight / 2 * self.rate / torch.expm1(self.rate)
        return {
            "step": torch.zeros(len(c), 1, dtype=torch.float64),
            "decay": (-self.rate.real).log(),
            "frequency": self.rate.imag.clone(),
            "C": torch.view_as_real(c).clone(),
        }


def relative_errors(modes: Modes, taps: Tensor) -> Tensor:
    """|h - fit| / |h| for each lane, in the Euclidean norm; a filter of zeros has error 0."""
    error = (modes.taps(taps.shape[1]) - taps).norm(dim=1)
    relative: Tensor = error / taps.norm(dim=1).clamp(min=1e-300)
    return relative


def fit(taps: Tensor, order: int, steps: int = 200) -> Modes:
    """The modes of filters `taps` (lanes, length), order / 2 complex ones with their conjugates."""
    taps = taps.detach().double().cpu()
    found = [_fit_lane(lane, order // 2) for lane in taps]
    modes = Modes(torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found]))
    return _refined(modes, taps, steps)


def _fit_lane(lane: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rates and weights of one filter: the best of what several spacings show."""
    length = len(lane)
    best: tuple[float, Tensor, Tensor] | None = None
    spacing = 1
    while spacing == 1 or spacing * 4 * count <= length:
        for rate in _rates(lane, count, spacing):
            weight = _weights(rate, lane)
            error = float((Modes(rate[None], weight[None]).taps(length)[0] - lane).norm())
            if best is None or error < best[0]:
                best = error, rate, weight
        spacing *= 4
    assert best is not None
    return best[1], best[2]


def _rates(lane: Tensor, count: int, spacing: int) -> Iterator[Tensor]:
    """Logarithms of the poles, (count,), imaginary parts not negative; unused ones are fast.

    Ranks above that of the filter give poles of noise, so some lower ones are offered, too.
    """
    rates = torch.full((count,), complex(-_FASTEST, 0), dtype=torch.complex128)
    rows = min(_ROWS, (len(lane) + spacing) // (2 * spacing))
    if rows < 2 or not lane.abs().max() > 0:
        yield rates
        return
    columns = len(lane) - spacing * (rows - 1)
    hankel = torch.stack([lane[spacing * i : spacing * i + columns] for i in range(rows)])
    basis = torch.linalg.eigh(hankel @ hankel.T).eigenvectors.flip(1)  # the largest first
    rank, offered = min(2 * count, rows - 1), 0
    while rank > 0 and offered < 3:
        space = basis[:, :rank]
        poles = torch.linalg.eigvals(torch.linalg.pinv(space[:-1]) @ space[1:])
        poles = poles[poles.imag >= -1e-12 * poles.abs()]  # one of each pair, and real ones
        if len(poles) > count:
            rank -= 1
            continue
        log = poles.log() / spacing
        log = torch.complex(log.real.clamp(-_FASTEST, -_SLOWEST), log.imag.clamp(min=0))
        found = rates.clone()
        found[: len(poles)] = torch.where(log.isfinite(), log, rates[0])
        yield found
        rank, offered = rank * 2 // 3, offered + 1


def _weights(rate: Tensor, lane: Tensor) -> Tensor:
    """The weights of given modes, by least squares over all taps."""
    powers = (torch.arange(len(lane))[:, None] * rate).exp()  # (length, modes)
    design = torch.cat([powers.real, -powers.imag], dim=1)
    solved = torch.linalg.lstsq(design, lane[:, None], rcond=1e-11, driver="gelsd").solution[:, 0]
    return torch.complex(*solved.chunk(2))


def _refined(modes: Modes, taps: Tensor, steps: int) -> Modes:
    """Modes improved by gradient, lane by lane only where that lowers the error."""
    length = taps.shape[1]
    size = taps.norm(dim=1).clamp(min=1e-300)
    best, errors = modes, relative_errors(modes, taps)
    shape = (4, *modes.rate.shape)
    moved = torch.zeros(shape, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([moved], lr=0.02)

    def now() -> Modes:
        decay, turn, larger, later = moved
        rate = torch.complex(
            (modes.rate.real * decay.exp()).clamp(-_FASTEST, -_SLOWEST),
            modes.rate.imag + turn / length,
        )
        return Modes(rate, modes.weight * torch.complex(1 + larger, later))

    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.02 * (1 - step / steps)
        optimizer.zero_grad()
        tried = now()
        error = (tried.taps(length) - taps).norm(dim=1) / size
        better = (error < errors).detach()
        if better.any():
            best = _choose(better, tried, best)
            errors = torch.where(better, error.detach(), errors)
        error.clamp(min=1e-12).log().sum().backward()
        optimizer.step()
    solved = Modes(
        best.rate,
        torch.stack([_weights(r, lane) for r, lane in zip(best.rate, taps, strict=True)]),
    )
    return _choose(relative_errors(solved, taps) < errors, solved, best)


def _choose(where: Tensor, first: Modes, second: Modes) -> Modes:
    lanes = where[:, None]
    return Modes(
        torch.where(lanes, first.rate, second.rate).detach(),
        torch.where(lanes, first.weight, second.weight).detach(),
    )
