"""The marks beside the equations of the built book lead to the tests that prove them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from bs4 import BeautifulSoup, Tag
from equations import equations_in_book, proofs_by_label

ROOT = Path(__file__).parents[2]


def _chapters() -> list[str]:
    return sorted(path.stem for path in (ROOT / "book").glob("[0-9][0-9]_*.ipynb"))


def _read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("chapter", _chapters())
def test_every_numbered_equation_leads_to_its_tests(chapter: str, built_book: Path) -> None:
    source = ROOT / "book" / f"{chapter}.ipynb"
    page = built_book / "book" / f"{chapter}.html"
    ledger = _read(built_book / "book" / "ledger.html")
    proofs = proofs_by_label(ROOT / "tests")
    seen = []
    for number in _read(page).select("main .eqno"):
        equation = number.find_parent("div", class_="math")
        assert isinstance(equation, Tag)
        label = str(equation["id"]).removeprefix("equation-")
        seen.append(label)
        marks = number.select("a.ledger-mark")
        assert len(marks) == 1, f"{label} has {len(marks)} marks"
        address = urlsplit(str(marks[0]["href"]))
        assert (page.parent / address.path).resolve() == built_book / "book" / "ledger.html"
        entry = ledger.find(id=address.fragment)
        assert isinstance(entry, Tag), f"{label} has no entry {address.fragment}"
        node_ids = [summary.get_text() for summary in entry.select("details > summary")]
        assert node_ids == [test.node_id for test in proofs[label]]
        code = [block.get_text().strip() for block in entry.select("details pre")]
        assert code == [test.source.strip() for test in proofs[label]]
        assert f"tested by {len(node_ids)} test" in str(marks[0]["aria-label"])
        back = entry.select_one("p a[href]")
        assert back is not None
        assert back["href"] == f"{chapter}.html#{equation['id']}"
    assert sorted(seen) == sorted(equations_in_book([source]))
