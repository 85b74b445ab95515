"""Every symbol in the maths of a chapter is in the tables of ``book/notation.md``.

A symbol is a letter, a Greek command, a name in ``\\operatorname`` or ``\\mathrm``, or one of these with an accent or a
font. A subscript belongs to the symbol ($p_\\theta$, $D_{\\mathrm{KL}}$) unless it counts ($x_d$, $z_1$); under an
operator ($\\mathbb E_{q(z)}$) it is maths of its own. The tables of the page are read with the same eyes: each symbol
in the first column counts as listed.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import NamedTuple

import pytest

BOOK = Path(__file__).parents[1] / "book"
CHAPTERS = sorted(BOOK.glob("[0-9][0-9]_*.ipynb"))
# What the reader of any formula knows, and what only lays it out.
PLAIN = set(
    r"""
    \log \exp \det \lim \max \min \int \sum \prod \frac \tfrac \dfrac \sqrt \binom \infty \partial \nabla \pi
    \in \notin \sim \approx \propto \equiv \mid \| \Vert \vert \parallel \cdot \times \circ \pm \mp \to \mapsto \colon
    \le \ge \leq \geq \ne \neq \ll \gg \subset \cup \cap \forall \exists \iff \implies \Rightarrow \Leftrightarrow
    \dots \ldots \cdots \vdots \quad \qquad \, \; \! \: \> \\ \  \{ \} \% \& \# \_ \langle \rangle \lbrace \rbrace
    \left \right \middle \big \Big \bigg \Bigg \bigl \bigr \Bigl \Bigr \biggl \biggr \Biggl \Biggr
    \limits \nolimits \displaystyle \textstyle \underbrace \overbrace \boxed \begin \end \top \lfloor \rfloor
    """.split()
)
FONTS = set(r"\mathcal \mathbb \mathrm \mathbf \mathsf \boldsymbol \operatorname \operatorname*".split())
ACCENTS = set(r"\hat \bar \tilde \widehat \widetilde \overline \vec \dot \check".split())
WORDS = re.compile(r"\\(?:text|textrm|textit|textbf|tag|label|begin|end)\s*\{[^{}]*\}")
OPERATORS = {r"\mathbb{E}", r"\operatorname{Var}", r"\operatorname{Cov}"}
TOKEN = re.compile(r"\\operatorname\*|\\[A-Za-z]+|\\.|[A-Za-z]|[0-9]+|\S", re.DOTALL)
COUNTING = re.compile(r"[0-9bdijkns, DKLNS+\-:()<>=]*")


class Reader:
    """A walk over the tokens of one formula that collects its symbols."""

    def __init__(self, tex: str) -> None:
        """Take the words out, and split the rest."""
        self.tokens = TOKEN.findall(WORDS.sub(" ", tex))
        self.at = 0
        self.found: list[str] = []

    def read(self) -> list[str]:
        """Return the symbols in the order in which they stand."""
        while self.at < len(self.tokens):
            self._one()
        return self.found

    def _peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def _group(self) -> str:
        """Take the next argument, braced or single, as tight TeX."""
        start, depth = self.at, 0
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            depth += (token == "{") - (token == "}")
            self.at += 1
            if depth == 0 and (token == "}" or token not in FONTS | ACCENTS):
                break
        taken = self.tokens[start : self.at]
        taken = taken[1:-1] if taken[:1] == ["{"] else taken
        return tight(taken)

    def _one(self) -> None:
        token = self._peek()
        self.at += 1
        if token in FONTS | ACCENTS:
            name = f"{token}{{{self._group()}}}"
        elif (token.isalpha() and token.isascii()) or (token.startswith("\\") and token not in PLAIN):
            name = token
        else:
            return
        operator = name in OPERATORS or name.startswith(r"\operatorname*")
        if self._peek() == "_" and not operator:
            self.at += 1
            below = self._group()
            if not COUNTING.fullmatch(below):
                name = f"{name}_{{{below}}}"
        if self._peek() == "'":
            name += "'"
        elif self.tokens[self.at : self.at + 2] == ["^", "*"]:
            name += "^*"
        self.found.append(name)


def tight(tokens: list[str]) -> str:
    """Write tokens in one way: no spaces but where a command would swallow the next letter, no braces around one."""
    text = ""
    for token in tokens:
        glued = re.search(r"\\[A-Za-z]+$", text) and token[0].isalpha()
        text += (" " if glued else "") + token
    return re.sub(r"(\\math\w+) (\w)", r"\1{\2}", text)


def symbols(tex: str) -> list[str]:
    """Return the symbols of a formula."""
    return Reader(tex).read()


def formulas(markdown: str) -> list[str]:
    """Return the maths of a Markdown text: displayed, inline, and bare environments; none of the code."""
    text = re.sub(r"^(`{3,})(?!\{math\}).*?^\1", "", markdown, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\{math\}`([^`]+)`", r"$\1$", text)
    text = re.sub(r"^`{3}\{math\}(.*?)^`{3}", r"$$\1$$", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]+`", "", text)
    found = re.findall(r"\$\$(.+?)\$\$", text, flags=re.DOTALL)
    text = re.sub(r"\$\$.+?\$\$", "", text, flags=re.DOTALL)
    found += re.findall(r"\\begin\{(?:align|equation|gather)\*?\}(.+?)\\end\{", text, flags=re.DOTALL)
    return found + re.findall(r"(?<![\\$])\$([^$]+?)(?<!\\)\$", text)


class Notation(NamedTuple):
    """What the page lists: for the whole book, and for one chapter each."""

    everywhere: frozenset[str]
    local: dict[int, frozenset[str]]


def notation(markdown: str) -> Notation:
    """Read the tables whose first column is headed "symbol"; those under "Chapter n" hold for chapter n alone."""
    everywhere: set[str] = set()
    local: dict[int, set[str]] = {}
    here, listing = everywhere, False
    for line in markdown.splitlines():
        if heading := re.match(r"#+ +(.*)", line):
            chapter = re.match(r"Chapter (\d+)", heading[1])
            here = local.setdefault(int(chapter[1]), set()) if chapter else everywhere
        if not line.startswith("|"):
            listing = False
            continue
        first = re.split(r"(?<!\\)\|", line)[1]
        if first.strip() == "symbol":
            listing = True
        elif listing:
            here.update(name for tex in formulas(first) for name in symbols(tex))
    return Notation(frozenset(everywhere), {number: frozenset(names) for number, names in local.items()})


PAGE = notation((BOOK / "notation.md").read_text(encoding="utf-8"))


def used_in(path: Path) -> dict[str, str]:
    """Return each symbol in the Markdown of a page, with the first formula that uses it."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    used: dict[str, str] = {}
    for tex in formulas(text):
        for name in symbols(tex):
            used.setdefault(name, " ".join(tex.split()))
    return used


@pytest.mark.parametrize("path", [*CHAPTERS, BOOK / "glossary.md"], ids=lambda path: path.stem)
def test_every_symbol_is_listed(path: Path) -> None:
    number = int(path.stem[:2]) if path.suffix == ".ipynb" else 0
    listed = PAGE.everywhere | PAGE.local.get(number, frozenset())
    missing = [f"{name}  in  {tex[:80]}" for name, tex in used_in(path).items() if name not in listed]
    if missing:
        pytest.fail("\n".join([f"{path.name} uses what no table of book/notation.md lists:", *missing]), pytrace=False)


@pytest.mark.parametrize("number", PAGE.local)
def test_every_local_symbol_is_used(number: int) -> None:
    """A symbol that only one chapter needs leaves the page when the chapter drops it."""
    (path,) = BOOK.glob(f"{number:02d}_*.ipynb")
    assert PAGE.local[number] - set(used_in(path)) == frozenset()


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"p_\theta(x \mid z)", [r"p_{\theta}", "x", "z"]),
        (r"q_{\phi}(z)", [r"q_{\phi}", "z"]),
        (r"p_{\mathcal D}(x)", [r"p_{\mathcal{D}}", "x"]),
        (r"p_{\mathcal{D}}", [r"p_{\mathcal{D}}"]),
        (r"D_{\mathrm{KL}}\big(q \,\|\, p\big)", [r"D_{\mathrm{KL}}", "q", "p"]),
        (r"\mathbb E_{q(z)}[\log w(z)]", [r"\mathbb{E}", "q", "z", "w", "z"]),
        (r"\operatorname*{arg\,max}_q f", [r"\operatorname*{arg\,max}", "q", "f"]),
        (r"\hat p(x)^2", [r"\hat{p}", "x"]),
        (r"\hat{\mathbf x}", [r"\hat{\mathbf{x}}"]),
        (r"\mathcal N(0, I)", [r"\mathcal{N}", "I"]),
        (r"x_1, \dots, x_D", ["x", "x"]),
        (r"\sum_{s=1}^S z^{(s)}", ["s", "S", "z", "s"]),
        (r"\text{the ELBO of } q", ["q"]),
        (r"z' + \theta^*", ["z'", r"\theta^*"]),
        (r"\tfrac12 \delta^\top \Sigma^{-1}", [r"\delta", r"\Sigma"]),
    ],
)
def test_a_formula_is_read(tex: str, expected: list[str]) -> None:
    assert symbols(tex) == expected


def test_code_and_words_are_no_maths() -> None:
    text = "`$a$` costs 3\\$\n\n```python\nx = '$b$'\n```\n\n$c$ and\n$$\nd\n$$\n\\begin{align}e\\end{align} {math}`f`"
    assert sorted(formulas(text)) == ["\nd\n", "c", "e", "f"]


@pytest.mark.parametrize("tex", [r"\psi", r"p_\psi", r"D_{\mathrm{JS}}", r"\operatorname{erf}", r"\hat q", r"z'"])
def test_an_unknown_symbol_is_seen(tex: str) -> None:
    assert not set(symbols(tex)) <= PAGE.everywhere


def test_a_local_symbol_holds_in_its_chapter_alone() -> None:
    page = notation("| symbol | meaning |\n|---|---|\n| $x$ | |\n\n### Chapter 3\n\n| symbol |\n|---|\n| $k$ |\n")
    assert page == Notation(frozenset("x"), {3: frozenset("k")})
