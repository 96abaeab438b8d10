"""Random operators, right by construction: every expression is built for the type it must have.

Numbers are kept sane as a careful author would keep them: decays lie in (0, 1), exp() sees nothing
large, divisors and logarithms stay away from zero. Owns: operator bodies and their parameters.
Refuses: the backbone (programs.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from starc.compiler.catalog import ENTRIES
from starc.compiler.types import (
    Constant,
    Feature,
    Filter,
    Mixer,
    Problem,
    Type,
    apply_mixer,
    group_heads,
)
from tests.strategies.stages import bent, initial, norm, smooth
from tests.strategies.text import ATOM, MIX, PIPE, PRODUCT, SUM, UNARY, Draws, Piece
from tests.strategies.written import BINDINGS, Formal, Written


def draw_operator(draws: Draws, name: str, width: int, others: Sequence[Written] = ()) -> Written:
    """An operator of the given name for models of the given width; it may call the others."""
    return _Body(draws, name, width, others).write()


class _Body:
    def __init__(self, draws: Draws, name: str, width: int, others: Sequence[Written]) -> None:
        self.draws, self.width = draws, width
        self.others = [o for o in others if o.name not in BINDINGS]  # a name may be bound here
        self.written = Written(name)
        self.free = list(BINDINGS)
        self.x = Piece("x", ATOM, Feature(1, width))
        self.budget = 14  # expressions yet to be written: bounds the size of a program

    def write(self) -> Written:
        draws = self.draws
        if draws.chance(4):
            self.written.doc = draws.pick('"doc"', '"""a\x00\\ "\x00b"""', '"ünï\x00{}\x00%s"')
        if draws.chance(5):
            y = self.channel_mixer()
        else:
            y = self.finish(self.token_mixer())
        self.written.lines.append(f"y = {y.text}")
        return self.written

    # --- names ----------------------------------------------------------------------------------

    def name(self) -> str:
        if not self.free:
            self.free = [f"v{len(self.written.lines)}_{i}" for i in range(10)]
        return self.free.pop(self.draws.below(len(self.free)))

    def bind(self, piece: Piece) -> Piece:
        """The piece, or a name for it."""
        if piece.level == ATOM and piece.text.isidentifier():
            return piece
        if self.draws.chance(2):
            return piece
        return self.named(piece)

    def named(self, piece: Piece) -> Piece:
        name = self.name()
        self.written.lines.append(f"{name} = {piece.text}")
        self.written.bound[name] = piece.type
        return Piece(name, ATOM, piece.type)

    def whole(self, n: int) -> str:
        """A size: a number, an expression or a parameter that always has this value."""
        if not self.draws.chance(6):
            return self.draws.whole(n, self.width)
        spelt = self.draws.whole(n, self.width)
        default = spelt if self.draws.chance(2) else None
        return self.formal(self.draws.pick("int", None), (str(n),), default)

    def varying(self, kind: str, *values: str) -> str:
        """One of the values, or a parameter that calls set to any of them."""
        if not self.draws.chance(3):
            return self.draws.pick(*values)
        return self.formal(kind, values, self.draws.pick(None, values[0]))

    def formal(
        self,
        kind: str | None,
        values: tuple[str, ...],
        default: str | None,
        feature: Feature | None = None,
    ) -> str:
        name = self.name()
        self.written.formals.append(Formal(name, kind, values, default, feature))
        return name

    # --- stages ---------------------------------------------------------------------------------

    def pipe(self, piece: Piece, stage: str, type_: Type | None = None) -> Piece:
        """piece |> stage, or stage(piece) where a call may stand for it."""
        type_ = type_ or piece.type
        name, _, rest = stage.partition("(")
        if name != "repeat" and self.draws.chance(6):
            arguments = f" , {rest}" if rest else " )"
            return Piece(f"{name}( {piece.text}{arguments}", ATOM, type_)
        return Piece(f"{piece.text} |> {stage}", PIPE, type_)

    def binary(self, operator: str, left: Piece, right: Piece, type_: Type) -> Piece:
        level = {"+": SUM, "-": SUM, "*": PRODUCT, "/": PRODUCT, "@": MIX}[operator]
        text = f"{left.at(level)} {operator} {right.at(level + 1)}"
        return Piece(text, level, type_)

    def projection(self, heads: int, channels: int) -> Piece:
        """F[heads, channels] from x, by a dense map and a split."""
        draws, n = self.draws, heads * channels
        if n == self.width and draws.chance(6):
            flat = self.x
        elif draws.chance(12):
            flat = Piece(f"lookup({n})", ATOM, Feature(1, n))
        else:
            options = [self.whole(n)]
            match draws.below(6):
                case 3:
                    options.append("bias = true")
                case 4:
                    options.append(f"rank = {self.varying('int', '2', '3')}")
                case 5 if n % 2 == 0:
                    options += ["groups = 2", "bias = true"]
            source = Piece("e", ATOM, self.x.type) if draws.chance(12) else self.x
            source = self.pipe(source, norm(draws, 1, self.width)) if draws.chance(6) else source
            if self.others and draws.chance(5):
                source = self.pipe(source, draws.pick(*self.others).call(draws))
            flat = self.pipe(source, f"dense({' , '.join(options)})", Feature(1, n))
            if draws.chance(5):
                flat = self.pipe(flat, self.causal_stage())
        return self.split(flat, heads, channels)

    def split(self, flat: Piece, heads: int, channels: int) -> Piece:
        if heads == 1 and not self.draws.chance(8):
            return replace(flat, type=type(flat.type)(1, channels))
        return self.pipe(flat, f"heads({self.whole(heads)})", type(flat.type)(heads, channels))

    def causal_stage(self) -> str:
        """A stage that mixes tokens inside the featurizer."""
        k = self.varying("int", "3", "1", "4", "150")
        return self.draws.pick(
            f"conv({k})",
            "conv(2, dilation = 3, bias = true)",
            "conv(3, groups = 1)",
            "shift",
            "shift(2)",
        )

    def stage(self, piece: Piece) -> Piece:
        """The piece through a stage that keeps its type."""
        draws, type_ = self.draws, piece.type
        assert isinstance(type_, Feature)
        h, d = type_.heads, type_.channels
        match draws.below(14):
            case 0 | 1:
                return self.pipe(piece, smooth(draws))
            case 2:
                return self.pipe(piece, norm(draws, h, d))
            case 3:
                return self.pipe(piece, self.causal_stage())
            case 4:
                return self.pipe(piece, f"scale({self.varying('real', draws.real(), '0.3')})")
            case 5:
                return self.pipe(piece, draws.pick("gain", "gain(0.5)", "gain(init = 1 / 2)"))
            case 6:
                options = draws.pick("", " , bias = true")
                return self.pipe(piece, f"headwise({self.whole(d)}{options})")
            case 7 if d % 2 == 0:
                theta = self.varying("real", "10_000", "100")
                options = draws.pick(
                    "", " , dims = 2", " , pairs = interleaved", " , scaling = linear(4)"
                )
                return self.pipe(piece, f"rope({theta}{options})")
            case 8 if h == 1:
                return self.pipe(piece, f"dense({self.whole(d)})")
            case 9:
                return self.pipe(piece, "softmax")
            case 10:  # the kink stays where no token stands by construction (zeros of a shift)
                lifted = self.binary("+", piece, Piece("0.1", ATOM, Constant(1, 1)), type_)
                return self.pipe(lifted, draws.pick("relu", "relu2", "abs"))
            case 11 | 12:
                return self.pipe(piece, bent(draws, d))
        return self.pipe(piece, "tanh")

    # --- features -------------------------------------------------------------------------------

    def feature(self, heads: int, channels: int, depth: int = 2) -> Piece:
        """An expression of type F[heads, channels]."""
        wanted = Feature(heads, channels)
        known = [n for n, t in self.written.bound.items() if t == wanted]
        if known and self.draws.chance(4):
            return Piece(self.draws.pick(*known), ATOM, wanted)
        self.budget -= 1
        if depth == 0 or self.budget < 0:
            return self.projection(heads, channels)
        piece = self._feature(heads, channels, depth)
        assert piece.type == wanted, (piece, wanted)
        return self.bind(piece)

    def _feature(self, h: int, d: int, depth: int) -> Piece:
        draws = self.draws
        match draws.below(13):
            case 0 | 1 | 2:
                return self.projection(h, d)
            case 3 | 4 | 5:
                return self.stage(self.feature(h, d, depth - 1))
            case 6:
                left, right = self.feature(h, d, depth - 1), self.operand(h, d)
                if draws.chance(3):
                    left, right = right, left
                return self.binary(draws.pick("*", "+", "-"), left, right, Feature(h, d))
            case 7:
                return self.binary(
                    "/", self.feature(h, d, depth - 1), self.positive(h, d), Feature(h, d)
                )
            case 8:
                wide = self.feature(h, d + 2, depth - 1)
                return self.pipe(
                    wide, draws.pick(f"slice(0, {d})", f"slice(2, {d + 2})"), Feature(h, d)
                )
            case 9 if d > 1:
                parts = [self.feature(h, d - 1, depth - 1), self.feature(h, 1, 0)]
                if draws.chance(3):
                    parts[1] = Piece(f"param({h}, 1)", ATOM, Constant(h, 1))
                return Piece(f"concat({' , '.join(p.text for p in parts)})", ATOM, Feature(h, d))
            case 10 if h % 2 == 0:
                few = self.feature(h // 2, d, depth - 1)
                return self.pipe(few, "repeat(2)", Feature(h, d))
            case 11:
                left, right = self.feature(h, d, depth - 1), self.operand(h, d)
                name = draws.pick("max", "min")
                return Piece(f"{name}({left.text} , {right.at(SUM)} + 0.07)", ATOM, Feature(h, d))
            case 12:
                return self.mapped(h, d, depth - 1)
        negated = self.feature(h, d, depth - 1)
        return Piece(f"-{negated.at(UNARY)}", UNARY, Feature(h, d))

    def mapped(self, h: int, d: int, depth: int) -> Piece:
        """F[h, d] as the result of a map that adds channels, where one does."""
        options = [(d - 1, "taylor(order = 1)")] if d > 1 else []
        options += [(n, "taylor") for n in (1, 2, 3) if 1 + n + n * (n + 1) // 2 == d]
        options += [(d // 2, stage) for stage in ("hedgehog", "hedgehog(exp)") if d % 2 == 0]
        if not options:
            return self.projection(h, d)
        channels, stage = self.draws.pick(*options)
        return self.pipe(self.feature(h, channels, depth), stage, Feature(h, d))

    def operand(self, h: int, d: int) -> Piece:
        """Something that broadcasts against F[h, d]."""
        shape = self.draws.pick((h, d), (h, 1), (1, d), (1, 1))
        match self.draws.below(5):
            case 0 if self.draws.chance(4):
                return Piece("sin(index)", ATOM, Feature(1, 1))
            case 0:
                return Piece(self.draws.real(), SUM, Constant(1, 1))
            case 1:
                return self.constant(*shape)
            case 2:
                name = self.formal("feature", ("0.5",), None, Feature(*shape))
                return Piece(name, ATOM, Feature(*shape))
        return self.feature(*shape, 0)

    def constant(self, h: int, d: int) -> Piece:
        text = f"param({self.whole(h)} , {self.whole(d)}{initial(self.draws)})"
        piece = Piece(text, ATOM, Constant(h, d))
        return self.pipe(piece, smooth(self.draws)) if self.draws.chance(3) else piece

    def positive(self, h: int, d: int) -> Piece:
        """A feature well above zero."""
        base = self.feature(h, d, 0)
        match self.draws.below(5):
            case 0:
                return self.lifted(self.pipe(base, "softplus"), "0.5")
            case 1:
                return self.lifted(self.pipe(base, "square"), "1")
            case 2:
                return Piece(f"exp(tanh({base.text}))", ATOM, base.type)
            case 3:
                return Piece(f"sqrt(0.1 + square({base.text}))", ATOM, base.type)
        return Piece(f"log(3 + sigmoid({base.text}))", ATOM, base.type)

    def lifted(self, piece: Piece, by: str) -> Piece:
        return self.binary("+", piece, Piece(by, ATOM, Constant(1, 1)), piece.type)

    def decay(self, h: int, n: int) -> Piece:
        """A transition in (0, 1), in the ways that programs write it."""
        match self.draws.below(8):
            case 0:
                return self.pipe(self.feature(h, n, 0), "sigmoid")
            case 1:
                return Piece(f"exp(-softplus({self.feature(h, n, 0).text}))", ATOM, Feature(h, n))
            case 2:
                rate = f"exp(param({h}, {n}, init = log(uniform(1, 4))))"
                steps = self.bind(self.pipe(self.feature(h, 1, 0), "softplus"))
                return Piece(f"exp(-{steps.at(UNARY)} * {rate})", ATOM, Feature(h, n))
            case 3:
                gate = self.pipe(self.feature(h, n, 0), "logsigmoid")
                return Piece(f"exp({gate.at(PRODUCT)} / 16)", ATOM, Feature(h, n))
            case 4:
                gate = self.pipe(self.feature(h, n, 0), "sigmoid")
                return Piece(f"0.5 + 0.5 * {gate.at(MIX)}", SUM, Feature(h, n))
            case 5:
                return Piece(
                    f"sigmoid(param({h}, {n}, learned = false, init = 2))", ATOM, Constant(h, n)
                )
            case 6:
                return Piece(f"exp(-softplus(param({h}, {n})))", ATOM, Constant(h, n))
        return Piece(self.draws.pick("0.9", "1", "7/8"), PRODUCT, Constant(1, 1))

    # --- mixers ---------------------------------------------------------------------------------

    def token_mixer(self) -> Piece:
        """T @ V, sometimes more than once, with a gate or a skip."""
        draws = self.draws
        heads, channels = draws.pick(
            (1, 4), (2, 4), (4, 2), (2, 3), (1, 8), (1, self.width), (4, 1), (6, 2)
        )
        value = self.feature(heads, channels)
        mixer = self.bind(self.mixer(heads, channels, 2))
        if mixer.type == Mixer(heads, causal=True) and draws.chance(3):
            value = self.feature(draws.pick(1, heads), channels)
        if draws.chance(6):
            mixer = self.named(mixer)
            value = self.applied(mixer, value)
        y = self.applied(mixer, self.bind(value))
        if draws.chance(4):
            shape = y.type
            assert isinstance(shape, Feature)
            skip = self.binary("*", self.constant(shape.heads, 1), value, value.type)
            if shape == value.type:
                y = self.binary("+", y, skip, shape)
        return y

    def applied(self, mixer: Piece, value: Piece) -> Piece:
        assert isinstance(mixer.type, Mixer)
        try:
            type_ = apply_mixer(mixer.type, value.type)
        except Problem:
            return value
        return self.binary("@", mixer, value, type_)

    def mixer(self, h: int, d: int, depth: int) -> Piece:
        """A causal mixer that fits values F[h, d]."""
        draws = self.draws
        self.budget -= 1
        makers: list[Callable[[int, int], Piece]] = [
            self.low_rank, self.semi_separable, self.toeplitz, self.low_rank, self.diagonal,
            lambda h, d: Piece(f"static(context , {h})", ATOM, Mixer(h, causal=True)),
        ]  # fmt: skip
        if depth == 0 or self.budget < 0 or not draws.chance(2):
            return self.bind(self.stages(draws.pick(*makers)(h, d)))
        left = self.mixer(h, d, depth - 1)
        match draws.below(6):
            case 0:
                return self.combined("compose", "@", left, self.mixer(h, d, depth - 1))
            case 1:
                op, sign = draws.pick(("mixer_add", "+"), ("mixer_multiply", "*"))
                return self.combined(op, sign, left, self.mixer(h, d, depth - 1))
            case 2:
                return self.combined("mixer_subtract", "-", left, self.mixer(h, d, depth - 1))
            case 3:
                gated = self.combined("compose", "@", self.diagonal(h, d), left)
                return self.combined("compose", "@", gated, self.diagonal(h, d))
            case 4:
                rows = draws.pick(self.operand(h, 1), self.operand(1, 1))
                return self.combined("row_scale", "*", rows, left)
        text = draws.pick("-{}", "0.5 * {}", "{} * 0.5", "{} / 2").format(left.at(UNARY))
        return Piece(text, PRODUCT, left.type)

    def combined(self, op: str, operator: str, left: Piece, right: Piece) -> Piece:
        """The two combined where the type rule allows it, else the right one."""
        try:
            type_ = ENTRIES[op].rule([left.type, right.type], {})
        except Problem:
            return right
        return self.binary(operator, left, right, type_)

    def heads_of(self, h: int, count: int) -> list[int]:
        """Head counts of the parts of a mixer that serves h heads."""
        few = h // 2 if h % 2 == 0 else 1
        return [h if self.draws.chance(2) else self.draws.pick(few, 1, h) for _ in range(count)]

    def low_rank(self, h: int, d: int) -> Piece:
        n = self.draws.pick(4, 2, 3, 6)
        c, b = (self.feature(k, n) for k in self.heads_of(h, 2))
        if self.draws.chance(6):
            c = self.constant(h, n)
        heads = group_heads((("C", c.type.heads), ("B", b.type.heads)))  # type: ignore[union-attr]
        names = self.draws.pick("{} , {}", "C = {} , B = {}", "{} , B = {}")
        return Piece(f"low_rank({names.format(c.text, b.text)})", ATOM, Mixer(heads))

    def semi_separable(self, h: int, d: int) -> Piece:
        n = self.draws.pick(4, 2, 1, 3)
        hc, ha, hb = self.heads_of(h, 3)
        c, b = self.feature(hc, n), self.feature(hb, n)
        if self.draws.chance(6):
            c, hc = Piece("1", ATOM, Constant(1, 1)), 1
        a = self.bind(self.decay(ha, self.draws.pick(1, n)))
        heads = max(hc, ha if isinstance(a.type, Feature) else a.type.heads, hb)  # type: ignore[union-attr]
        return Piece(
            f"semi_separable({c.text} , {a.text} , {b.text})", ATOM, Mixer(heads, causal=True)
        )

    def toeplitz(self, h: int, d: int) -> Piece:
        lanes = self.draws.pick(h * d, h, 1)
        decay = self.draws.pick("", " , decay = false")
        filter_ = self.draws.pick(
            f"explicit({self.whole(lanes)} , {self.varying('int', '3', '1', '4', '150')})",
            f"implicit({self.whole(lanes)} , 4{decay})",
            f"ssm({lanes} , {self.draws.pick('4', '2, init = inv', 'init = real , order = 3')})",
        )
        taps = self.bind(Piece(filter_, ATOM, Filter(lanes, None)))
        return Piece(f"toeplitz({taps.text})", ATOM, Mixer(lanes, flat=True, causal=True))

    def diagonal(self, h: int, d: int) -> Piece:
        shape = self.draws.pick((h, d), (h, 1), (1, 1))
        f = self.constant(*shape) if self.draws.chance(5) else self.feature(*shape, 1)
        return Piece(f"diagonal({f.text})", ATOM, Mixer(*shape, causal=True))

    def stages(self, mixer: Piece) -> Piece:
        """The mixer through stages in any legal order; masked in the end at the latest."""
        draws = self.draws
        assert isinstance(mixer.type, Mixer)
        nonlinear = not mixer.type.flat and mixer.type.channels == 1
        attention = draws.pick(
            ("scale", "causal", "softmax"),
            ("causal",),
            ("scale", "causal", "band", "softmax"),
            ("softcap", "band", "causal", "softmax"),
            ("causal", "normalize"),
            ("sigmoid", "causal"),
            ("causal", "relu", "normalize"),
            ("relu", "scale", "causal", "softcap", "scale"),
            ("causal", "softmax", "scale", "band", "normalize"),
            ("scale", "scale", "causal", "sigmoid", "sigmoid"),
        )  # fmt: skip
        if not nonlinear or mixer.type.causal:
            attention = draws.pick((), (), ("scale",), ("band",), attention)
        for stage in attention:
            if stage in ("softmax", "sigmoid", "relu", "softcap", "normalize") and not nonlinear:
                continue
            mixer = self.mixer_stage(mixer, stage)
            if draws.chance(5):
                mixer = self.bind(mixer)
        assert isinstance(mixer.type, Mixer)
        return mixer if mixer.type.causal else self.mixer_stage(mixer, "causal")

    def mixer_stage(self, mixer: Piece, stage: str) -> Piece:
        draws = self.draws
        assert isinstance(mixer.type, Mixer)
        arguments = {
            "scale": lambda: f"({draws.real()})",
            "softcap": lambda: draws.pick("(2)", "(c = 5.5)"),
            "band": lambda: f"({self.varying('int', '4', '1', '70')})",
            "normalize": lambda: draws.pick("(1)", "(floor = 0.5)"),
        }
        text = stage + (arguments[stage]() if stage in arguments else "")
        causal = mixer.type.causal or stage == "causal"
        return self.pipe(mixer, text, replace(mixer.type, causal=causal))

    # --- outputs --------------------------------------------------------------------------------

    def finish(self, y: Piece) -> Piece:
        """F[1, width] from whatever the mixer gave."""
        draws, type_ = self.draws, y.type
        assert isinstance(type_, Feature)
        if draws.chance(4):
            y = self.stage(self.bind(y))
        n = type_.heads * type_.channels
        if type_.heads > 1:
            y = self.pipe(y, "merge", Feature(1, n))
        if draws.chance(4):
            y = self.binary("*", y, self.feature(1, n, 1), Feature(1, n))
        if n == self.width and draws.chance(4):
            return y
        options = draws.pick("", "", " , bias = true")
        return self.pipe(y, f"dense({self.whole(self.width)}{options})", self.x.type)

    def channel_mixer(self) -> Piece:
        """A gated product or a plain pair of dense maps, as wide as the call says."""
        hidden = self.varying("int", "6", "16", "multiple(8/3 * width, 4)")
        up, gate = (self.pipe(self.x, f"dense({hidden})", Feature(1, 0)) for _ in range(2))
        gate = self.bind(self.pipe(gate, smooth(self.draws)))
        up = self.bind(up)
        y = self.draws.pick(
            self.binary("*", gate, up, up.type),
            self.binary("@", Piece(f"diagonal({gate.text})", ATOM, Mixer(1, 0)), up, up.type),
            gate,
        )
        self.written.bound = {n: t for n, t in self.written.bound.items() if t != Feature(1, 0)}
        return self.pipe(y, f"dense({self.draws.pick('width', str(self.width))})", self.x.type)
