"""Maps from the tensors of a checkpoint to the parameters of a program: their text, parsed.

    program "llama.star"
    settings { width = hidden_size  layers = num_hidden_layers }
    embedding.weight = model.embed_tokens.weight
    blocks.{i}.gqa.C.weight = model.layers.{i}.attn.qkv.weight |> part(0, 3)
    final_norm.weight = model.norm.weight - 1
    ignore model.layers.{i}.attn.inv_freq
    require hidden_act = silu or swish

Newlines mean nothing and `#` begins a comment, as in .star programs; `or` is loosest, then pipes,
sums, products. Names reach over dots and over indices in braces; quotes hold any other name.

Owns: the lexical and syntactic rules of maps. Refuses: knowing checkpoints, tensors or parameters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.source import Source, Span


@dataclass(frozen=True)
class Number:
    value: Fraction
    span: Span


@dataclass(frozen=True)
class Name:
    """A tensor of the checkpoint or a number of its configuration; `{...}` holds indices."""

    name: str
    span: Span


@dataclass(frozen=True)
class Arithmetic:
    """`left sign right`; negation is 0 - right."""

    sign: str
    left: Value
    right: Value
    span: Span


@dataclass(frozen=True)
class Call:
    """`function(arguments)`; what stands before a pipe is the first argument."""

    function: str
    arguments: tuple[Value, ...]
    named: tuple[tuple[str, Value], ...]
    span: Span


@dataclass(frozen=True)
class Either:
    """`first or second`: the first that the checkpoint has."""

    first: Value
    second: Value
    span: Span


Value = Number | Name | Arithmetic | Call | Either


@dataclass(frozen=True)
class Entry:
    """One parameter, or all that a name with indices matches, and what it is made of."""

    target: Name
    value: Value


@dataclass(frozen=True)
class Requirement:
    """What the configuration must say where it says anything: one of several words or numbers."""

    key: Name
    values: tuple[Name | Number, ...]
    span: Span


@dataclass(frozen=True)
class WeightMap:
    """A parsed map. `program` is the path of a program as the map writes it."""

    source: Source
    program: Name | None
    settings: tuple[Entry, ...]
    entries: tuple[Entry, ...]
    ignored: tuple[Name, ...]
    required: tuple[Requirement, ...]


_INDEX = r"\{[^{}=\n]*\}"
_TOKEN = re.compile(
    rf"""
      (?P<blank>\s+|\#[^\n]*)
    | (?P<name>[A-Za-z_](?:\w|{_INDEX})*(?:\.(?:\w|{_INDEX})+)*)
    | (?P<text>"[^"\n]*")
    | (?P<number>\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<sign>\|>|[-=(){{}},+*/])
    """,
    re.VERBOSE | re.ASCII,
)
_MAX_NESTING = 100
_MAX_EXPONENT = 400


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    span: Span


def parse_map(source: Source) -> WeightMap:
    """The map that a text holds. Raises StarError at the first place that is wrong."""
    return _Parser(source).map()


@cache
def parse_index(text: str) -> Value:
    """What stands in the braces of a name. Raises StarError, with places in `text`."""
    parser = _Parser(Source("index", text))
    value = parser.value()
    if parser.peek().kind != "end":
        raise parser.fault(f"{_shown(parser.peek())} ends no index.", parser.peek())
    return value


class _Parser:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.tokens = list(_tokens(source))
        self.next = 0
        self.nesting = 0

    def map(self) -> WeightMap:
        program: Name | None = None
        settings: list[Entry] = []
        entries: list[Entry] = []
        ignored: list[Name] = []
        required: list[Requirement] = []
        while (token := self.peek()).kind != "end":
            if self.begins_entry():
                entries.append(self.entry())
            elif token.text == "program":
                self.take()
                if program is not None:
                    raise self.fault("there is one program already.", token, "again here")
                program = self.name('a program in quotes: program "model.star"')
            elif token.text == "settings":
                self.take()
                self.expect("{")
                while self.peek().text != "}":
                    settings.append(self.entry())
                self.take()
            elif token.text == "ignore":
                self.take()
                ignored.append(self.name("the name of a tensor"))
                while self.peek().text == ",":
                    self.take()
                    ignored.append(self.name("the name of a tensor"))
            elif token.text == "require":
                self.take()
                required.append(self.requirement())
            else:
                raise self.fault(
                    f"{_shown(token)} begins no entry.",
                    token,
                    hint="an entry is PARAMETER = TENSOR; program, settings { }, ignore TENSOR and "
                    "require KEY = VALUE stand beside entries.",
                )
        return WeightMap(
            self.source, program, tuple(settings), tuple(entries), tuple(ignored), tuple(required)
        )

    # --- tokens ---------------------------------------------------------------------------------

    def peek(self, ahead: int = 0) -> _Token:
        return self.tokens[min(self.next + ahead, len(self.tokens) - 1)]

    def take(self) -> _Token:
        token = self.peek()
        self.next += 1
        return token

    def expect(self, text: str) -> _Token:
        token = self.take()
        if token.text != text or token.kind == "text":
            raise self.fault(f"'{text}' must stand here, not {_shown(token)}.", token)
        return token

    def name(self, what: str) -> Name:
        token = self.take()
        if token.kind not in ("name", "text"):
            raise self.fault(f"{what} must stand here, not {_shown(token)}.", token)
        return Name(_unquoted(token), token.span)

    def begins_entry(self) -> bool:
        return self.peek().kind in ("name", "text") and self.peek(1).text == "="

    def fault(self, message: str, token: _Token, label: str = "", hint: str = "") -> StarError:
        return StarError(Diagnostic("map-syntax", message, token.span, label, hint))

    # --- values ---------------------------------------------------------------------------------

    def entry(self) -> Entry:
        target = self.name("the name of a parameter")
        self.expect("=")
        return Entry(target, self.value())

    def requirement(self) -> Requirement:
        key = self.name("a key of config.json")
        self.expect("=")
        values = [self.word()]
        while self.peek().text == "or":
            self.take()
            values.append(self.word())
        return Requirement(key, tuple(values), key.span.to(values[-1].span))

    def word(self) -> Name | Number:
        token = self.take()
        if token.kind == "number":
            return Number(self.number(token), token.span)
        if token.kind in ("name", "text"):
            return Name(_unquoted(token), token.span)
        raise self.fault(f"a word or number must stand here, not {_shown(token)}.", token)

    def value(self) -> Value:
        self.nesting += 1
        if self.nesting > _MAX_NESTING:
            raise self.fault(f"more than {_MAX_NESTING} levels of nesting.", self.peek())
        value = self.pipe()
        while self.peek().text == "or" and not self.begins_entry():
            self.take()
            second = self.pipe()
            value = Either(value, second, value.span.to(second.span))
        self.nesting -= 1
        return value

    def pipe(self) -> Value:
        value = self.sum()
        while self.peek().text == "|>":
            self.take()
            name = self.take()
            if name.kind != "name":
                raise self.fault(f"a function must stand here, not {_shown(name)}.", name)
            call = (
                self.call(name) if self.peek().text == "(" else Call(name.text, (), (), name.span)
            )
            span = value.span.to(call.span)
            value = Call(call.function, (value, *call.arguments), call.named, span)
        return value

    def sum(self) -> Value:
        value = self.product()
        while self.peek().text in ("+", "-"):
            sign = self.take().text
            right = self.product()
            value = Arithmetic(sign, value, right, value.span.to(right.span))
        return value

    def product(self) -> Value:
        value = self.unary()
        while self.peek().text in ("*", "/"):
            sign = self.take().text
            right = self.unary()
            value = Arithmetic(sign, value, right, value.span.to(right.span))
        return value

    def unary(self) -> Value:
        signs = []
        while self.peek().text == "-":
            signs.append(self.take())
        value = self.primary()
        for sign in reversed(signs):
            span = sign.span.to(value.span)
            value = Arithmetic("-", Number(Fraction(0), sign.span), value, span)
        return value

    def primary(self) -> Value:
        token = self.take()
        if token.kind == "number":
            return Number(self.number(token), token.span)
        if token.kind == "text":
            return Name(_unquoted(token), token.span)
        if token.kind == "name":
            return self.call(token) if self.peek().text == "(" else Name(token.text, token.span)
        if token.text == "(":
            value = self.value()
            self.expect(")")
            return value
        raise self.fault(f"a tensor or number must stand here, not {_shown(token)}.", token)

    def call(self, name: _Token) -> Call:
        self.expect("(")
        positional: list[Value] = []
        named: list[tuple[str, Value]] = []
        while self.peek().text != ")":
            if self.begins_entry():
                entry = self.entry()
                named.append((entry.target.name, entry.value))
            else:
                positional.append(self.value())
            if self.peek().text != ")":
                self.expect(",")
        end = self.take()
        return Call(name.text, tuple(positional), tuple(named), name.span.to(end.span))

    def number(self, token: _Token) -> Fraction:
        digits = token.text.replace("_", "")
        mantissa, _, exponent = digits.lower().partition("e")
        if len(digits) > _MAX_EXPONENT or abs(int(exponent or 0)) > _MAX_EXPONENT:
            raise self.fault("this number is too large to be meant.", token)
        return Fraction(mantissa) * Fraction(10) ** int(exponent or 0)


def _tokens(source: Source) -> Iterator[_Token]:
    place = 0
    while place < len(source.text):
        found = _TOKEN.match(source.text, place)
        if found is None:
            span = Span(source, place, place + 1)
            hint = (
                'a name with other characters than letters, digits, "_" and "." stands in quotes.'
            )
            message = f"{source.text[place]!r} has no meaning here."
            raise StarError(Diagnostic("map-syntax", message, span, hint=hint))
        if found.lastgroup != "blank":
            assert found.lastgroup is not None
            yield _Token(found.lastgroup, found[0], Span(source, place, found.end()))
        place = found.end()
    yield _Token("end", "", Span(source, place, place))


def _unquoted(token: _Token) -> str:
    return token.text[1:-1] if token.kind == "text" else token.text


def _shown(token: _Token) -> str:
    return "the end" if token.kind == "end" else f"'{token.text}'"
