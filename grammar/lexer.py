"""From text to tokens.

Owns: cutting a source into tokens and comments, and all that can be wrong with a text before the
order of its tokens is looked at: characters, numbers, strings, operators of other languages.
Refuses: the order of tokens (parser.py). The patterns of the tokens come from star.lark.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import cache

from starc.grammar import tables
from starc.grammar.errors import Diagnostic, StarError
from starc.grammar.nodes import Comment
from starc.grammar.source import Source, Span

MAX_FAULTS = 20
# No size or constant needs more, and 1e999999999 as an exact rational would fill the memory.
MAX_NUMBER_LENGTH = 40
MAX_EXPONENT = 300

# Control characters, lone surrogates, and marks that break or reorder lines on screen: refused even
# in comments, because programs are printed in terminals and copied into generated Python.
_FORBIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]|\r(?!\n)"
)
_WRONG_NUMBER = re.compile(r"\.?[0-9](?:[0-9A-Za-z_]|\.(?!\.))*")
_WRONG_QUOTES = re.compile(
    "'[^'\n]*'|\N{LEFT DOUBLE QUOTATION MARK}[^\n]*?\N{RIGHT DOUBLE QUOTATION MARK}"
)
_WRONG_RUN = re.compile(r"[^\x00-\x7f]+|.", re.DOTALL)

_PIPE_HINT = "a value goes into a stage with '|>': x |> dense(width) |> silu."
_ONCE_HINT = "write C = ..., and give every value its own name: a name is bound once."
_EQUAL_HINT = "bindings and arguments are written with one '='; nothing is compared."
_DASH_HINT = "write the minus sign of the keyboard, '-'."
_QUOTE_HINT = 'documentation stands between straight double quotes: "...".'

# Spellings of other languages and of word processors: (code, what is wrong, hint). Longest first
# where one begins another.
SLIPS: dict[str, tuple[str, str, str]] = {
    "->": ("not-a-pipe", "'->' is not an operator of the language", _PIPE_HINT),
    "=>": ("not-a-pipe", "'=>' is not an operator of the language", _PIPE_HINT),
    ">>": ("not-a-pipe", "'>>' is not an operator of the language", _PIPE_HINT),
    "||": ("not-a-pipe", "'||' is not an operator of the language", _PIPE_HINT),
    "**": (
        "no-power",
        "there is no power operator",
        "write the product, a * a; for a feature also x |> square.",
    ),
    "^": ("no-power", "'^' is not an operator of the language", "write the product: a * a."),
    "==": ("no-comparison", "'==' is not an operator of the language", _EQUAL_HINT),
    "!=": ("no-comparison", "'!=' is not an operator of the language", _EQUAL_HINT),
    "<=": ("no-comparison", "'<=' is not an operator of the language", _EQUAL_HINT),
    ">=": ("no-comparison", "'>=' is not an operator of the language", _EQUAL_HINT),
    "<-": ("no-assignment", "'<-' is not an operator of the language", _ONCE_HINT),
    ":=": ("no-assignment", "':=' is not an operator of the language", _ONCE_HINT),
    "+=": ("no-assignment", "a name cannot be changed once it is bound", _ONCE_HINT),
    "-=": ("no-assignment", "a name cannot be changed once it is bound", _ONCE_HINT),
    "*=": ("no-assignment", "a name cannot be changed once it is bound", _ONCE_HINT),
    "/=": ("no-assignment", "a name cannot be changed once it is bound", _ONCE_HINT),
    "@=": ("no-assignment", "a name cannot be changed once it is bound", _ONCE_HINT),
    "//": (
        "no-slashes",
        "'//' is not part of the language",
        "a comment begins with '#'; division is exact and written '/'.",
    ),
    "/*": ("no-slashes", "'/*' is not part of the language", "a comment begins with '#'."),
    "...": ("bad-range", "a range is written with two dots", "write ?[1 .. 16]."),
    "<": ("no-comparison", "'<' is not an operator of the language", _EQUAL_HINT),
    ">": ("no-comparison", "'>' is not an operator of the language", _EQUAL_HINT),
    ";": (
        "no-semicolon",
        "nothing is ended by a semicolon",
        "leave it out: bindings and units follow each other without a mark between them.",
    ),
    "\N{MINUS SIGN}": ("unknown-character", "this is not a minus sign of the language", _DASH_HINT),
    "\N{EN DASH}": ("unknown-character", "this is not a minus sign of the language", _DASH_HINT),
    "\N{EM DASH}": ("unknown-character", "this is not a minus sign of the language", _DASH_HINT),
    "\N{LEFT DOUBLE QUOTATION MARK}": (
        "unknown-character",
        "this is not a quotation mark of the language",
        _QUOTE_HINT,
    ),
    "\N{RIGHT DOUBLE QUOTATION MARK}": (
        "unknown-character",
        "this is not a quotation mark of the language",
        _QUOTE_HINT,
    ),
    "'": ("unknown-character", "this is not a quotation mark of the language", _QUOTE_HINT),
    "\N{MULTIPLICATION SIGN}": (
        "unknown-character",
        "'\N{MULTIPLICATION SIGN}' is not an operator of the language",
        "multiply with '*', compose mixers with '@'.",
    ),
    "%": (
        "unknown-character",
        "'%' is not an operator of the language",
        "sizes are rounded up by multiple(a, of).",
    ),
}


@dataclass(frozen=True)
class Tokens:
    """Tokens as parallel lists; `kinds` are terminals of the tables, the last one END."""

    source: Source
    kinds: list[str]
    starts: list[int]
    ends: list[int]
    comments: tuple[Comment, ...]

    def text(self, index: int) -> str:
        return self.source.text[self.starts[index] : self.ends[index]]

    def span(self, index: int) -> Span:
        return Span(self.source, self.starts[index], self.ends[index])


def scan(source: Source) -> Tokens:
    """The tokens of a source. Raises StarError with every fault of spelling, at most MAX_FAULTS."""
    _refuse_characters(source)
    pattern, words = _pattern()
    text = source.text
    kinds: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    comments: list[Comment] = []
    faults: list[Diagnostic] = []
    position = 1 if text.startswith("\ufeff") else 0
    while position < len(text) and len(faults) < MAX_FAULTS:
        for match in pattern.finditer(text, position):
            kind = match.lastgroup
            position = match.end()
            if kind == "BLANK":
                continue
            start = match.start()
            if kind == "NAME":
                word = match.group()
                if word in words:
                    kind = word
            elif kind == "LITERAL":
                kind = match.group()
            elif kind == "COMMENT":
                comments.append(_comment(source, start, position))
                continue
            elif kind == "NUMBER" and not _bounded(match.group()):
                faults.append(_too_large(Span(source, start, position)))
                break
            elif kind in ("WRONG", None):
                fault = _fault(source, start)
                faults.append(fault)
                position = fault.span.end if fault.span else len(text)
                break
            assert kind is not None
            kinds.append(kind)
            starts.append(start)
            ends.append(position)
    if faults:
        raise StarError(faults)
    kinds.append(tables.END)
    starts.append(len(text))
    ends.append(len(text))
    return Tokens(source, kinds, starts, ends, tuple(comments))


@cache
def _pattern() -> tuple[re.Pattern[str], frozenset[str]]:
    """One pattern with a group for each kind of token, and the words among the literals."""
    language = tables.load()
    words = frozenset(text for text in language.literals if text[0].isalpha())
    symbols = sorted(set(language.literals) - words, key=lambda text: (-len(text), text))
    # Slips come first: '**' would also be two tokens, and no program has them side by side.
    slips = "|".join(re.escape(text) for text in SLIPS)
    groups = {
        "WRONG": f"{slips}|\\.[0-9]",
        **language.terminals,
        "LITERAL": "|".join(map(re.escape, symbols)),
    }
    alternatives = [f"(?P<{name}>{pattern})" for name, pattern in groups.items()]
    return re.compile("|".join([*alternatives, "(?s:.)"])), words


def _comment(source: Source, start: int, end: int) -> Comment:
    text = source.text
    line = text.rfind("\n", 0, start) + 1
    before = text[line:start].strip("\ufeff \t")
    return Comment(text[start + 1 : end].strip(), not before, span=Span(source, start, end))


def _bounded(number: str) -> bool:
    _, _, exponent = number.lower().partition("e")
    return len(number) <= MAX_NUMBER_LENGTH and abs(int(exponent or 0)) <= MAX_EXPONENT


# --- diagnostics -------------------------------------------------------------------------------


def _refuse_characters(source: Source) -> None:
    match = _FORBIDDEN.search(source.text, 1 if source.text.startswith("\ufeff") else 0)
    if match is None:
        return
    character = match.group()
    hint = "remove it; comments and documentation may not hold it either."
    if character == "\0":
        hint = "this looks like a binary file; a program is UTF-8 text."
    elif character == "\r":
        hint = "end lines with a newline, or with a carriage return and a newline."
    raise StarError(
        Diagnostic(
            "bad-character",
            f"the text holds {_character_name(character)}, which may stand nowhere in a program.",
            Span(source, match.start(), match.end()),
            hint=hint,
        )
    )


def _character_name(character: str) -> str:
    known = {"\0": "NULL", "\r": "CARRIAGE RETURN", "\f": "FORM FEED", "\x1b": "ESCAPE"}
    name = known.get(character) or unicodedata.name(character, "")
    return f"the character U+{ord(character):04X}" + (f" ({name})" if name else "")


def _fault(source: Source, start: int) -> Diagnostic:
    """What is wrong with the spelling at an offset where no token can be cut."""
    text = source.text
    first = text[start]
    if number := _WRONG_NUMBER.match(text, start):
        return _number_fault(Span(source, start, number.end()))
    if first == '"':
        return _string_fault(source, start)
    if quoted := _WRONG_QUOTES.match(text, start):
        message = "these are not quotation marks of the language."
        span = Span(source, start, quoted.end())
        return Diagnostic("unknown-character", message, span, hint=_QUOTE_HINT)
    for spelling, (code, headline, hint) in SLIPS.items():
        if text.startswith(spelling, start):
            span = Span(source, start, start + len(spelling))
            return Diagnostic(code, f"{headline}.", span, hint=hint)
    if first == "|":
        span = Span(source, start, start + 1)
        message = "'|' is not an operator of the language."
        return Diagnostic("not-a-pipe", message, span, hint=_PIPE_HINT)
    run = _WRONG_RUN.match(text, start)
    span = Span(source, start, run.end() if run else start + 1)
    if span.text.isprintable() and any(c.isalpha() for c in span.text):
        return Diagnostic(
            "unknown-character",
            "names are written with the letters a to z, A to Z, digits and '_'.",
            span,
            hint="any text may stand in a comment (# ...).",
        )
    return Diagnostic(
        "unknown-character",
        f"{_character_name(first)} means nothing in a program.",
        span,
        hint="any text may stand in a comment (# ...).",
    )


def _number_fault(span: Span) -> Diagnostic:
    text = span.text
    if text.startswith("."):
        hint = f"begin with a digit: 0{text}."
    elif re.fullmatch(r"0[xXbBoO][0-9a-fA-F_]+", text):
        value = int(text.replace("_", ""), 0) if _valid_radix(text) else None
        hint = f"numbers are decimal: {value}." if value is not None else "numbers are decimal."
    elif re.fullmatch(r"[0-9_]+\.", text):
        hint = f"write {text}0 or {text[:-1]}."
    elif re.fullmatch(r"[0-9._]+[eE]", text):
        hint = "an exponent needs digits: 1e-5."
    elif text.count(".") > 1:
        hint = "a number has one decimal point; a range is written with two dots: ?[1 .. 16]."
    elif "_" in text and re.fullmatch(r"[0-9_.]+", text):
        hint = "one '_' may stand between two digits: 50_304."
    elif re.fullmatch(r"[0-9._]+[kKmMgG]", text):
        hint = "write the digits: 4096, or 4 * 1024."
    elif len(text) > MAX_NUMBER_LENGTH:
        return _too_large(span)
    else:
        hint = "a name cannot begin with a digit; a product is written with '*'."
    shown = text if len(text) <= MAX_NUMBER_LENGTH else f"{text[:MAX_NUMBER_LENGTH]}..."
    return Diagnostic("bad-number", f"'{shown}' is not a number.", span, hint=hint)


def _too_large(span: Span) -> Diagnostic:
    message = f"a number has at most {MAX_NUMBER_LENGTH} characters, its exponent is at most "
    return Diagnostic("number-too-large", f"{message}{MAX_EXPONENT}.", span)


def _valid_radix(text: str) -> bool:
    digits = {"x": "0123456789abcdef", "b": "01", "o": "01234567"}[text[1].lower()]
    body = text[2:].lower()
    return len(body) <= MAX_NUMBER_LENGTH and all(c in digits for c in body)


def _string_fault(source: Source, start: int) -> Diagnostic:
    text = source.text
    if text.startswith('"""', start):
        span = Span(source, start, start + 3)
        message, closing = "this documentation is never closed.", '"""'
    else:
        end = text.find("\n", start)
        span = Span(source, start, len(text) if end < 0 else end)
        message, closing = "this documentation is not closed on its line.", '"'
    hint = f"close it with {closing}; several lines stand between three quotes on either side."
    return Diagnostic("unclosed-string", message, span, hint=hint)
