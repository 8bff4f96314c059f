"""Every word of the glossary is linked where a chapter uses it first; its table of names is evaluated."""

import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from chapters import NOTEBOOKS

import mpo_tutorial as mt

GLOSSARY = Path(__file__).parents[2] / "docs" / "glossary.md"
WORDS, _, TABLE = GLOSSARY.read_text(encoding="utf-8").partition("\n## From ")
HEADINGS = re.findall(r"^### (.+)$", WORDS, re.MULTILINE)
LINK = re.compile(r"\[([^\]]+)\]\(\.\./docs/glossary\.md#([^)]+)\)")
# Headings, tables, code, formulas, links to elsewhere, and what HTML says in angle brackets.
NOT_PROSE = re.compile(
    r"^[#|][^\n]*$|`[^`]*`|\$\$[^$]*\$\$|\$[^$]*\$|!?\[[^\]]*\]\((?!\.\./docs/glossary)[^)]*\)|<[^>]+>", re.MULTILINE
)
FORMS = {
    form.lower(): heading
    for heading in HEADINGS
    for form in (heading, f"{heading}s", f"{heading.removesuffix('y')}ies" if heading.endswith("y") else heading)
}
ANY_FORM = "|".join(sorted(map(re.escape, FORMS), key=len, reverse=True))
# "Tensor" and "bond dimension" are words, the tensor in "tensor network" and the bond in "bond dimension" are not.
WORD = re.compile(
    rf"\[?(?<![\w-])({ANY_FORM})(?![\w-]| networks?| train)(?:\]\(\.\./docs/glossary\.md#([^)]+)\))?", re.I
)


def anchor(heading: str) -> str:
    return heading.lower().replace(" ", "-")


def first_uses(path: Path) -> dict[str, str | None]:
    """Of the words that a chapter uses: where the first use leads to."""
    cells = nbformat.read(path, as_version=4).cells[1:]
    prose = "\n".join(NOT_PROSE.sub(" ", cell.source) for cell in cells if cell.cell_type == "markdown")
    found: dict[str, str | None] = {}
    for use in WORD.finditer(prose):
        found.setdefault(FORMS[use[1].lower()], use[2])
    return found


def test_words_stand_once_and_in_order():
    assert sorted(set(HEADINGS), key=str.lower) == HEADINGS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_word_is_linked_where_a_chapter_uses_it_first(path):
    uses = first_uses(path)
    assert len(uses) >= 8
    assert uses == {heading: anchor(heading) for heading in uses}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_chapter_links_a_word_once_and_to_its_own_entry(path):
    cells = nbformat.read(path, as_version=4).cells
    links = [link for cell in cells for link in LINK.findall(cell.source)]
    assert len(links) == len({target for _, target in links})
    assert [anchor(FORMS[word.lower()]) for word, _ in links] == [target for _, target in links]


def test_every_word_is_used_by_a_chapter_or_another_entry():
    used = {heading for path in NOTEBOOKS for heading in first_uses(path)}
    for heading in set(HEADINGS) - used:
        others = re.sub(rf"^### {re.escape(heading)}\n.*?(?=^### |\Z)", "", WORDS, flags=re.MULTILINE | re.DOTALL)
        assert re.search(rf"\b{re.escape(heading)}\b", others, re.I), heading


def test_the_librarys_names_in_the_table_stand_for_what_it_says():
    matrix, shape, bonds, k = torch.eye(6), mt.Shape((2, 3), (3, 2)), (2,), 1
    mpo, spectra = mt.MPO.from_matrix(matrix, shape), mt.Spectra.of(matrix, shape)
    names = {**vars(mt), "mpo": mpo, "shape": shape, "spectra": spectra, "matrix": matrix, "bonds": bonds, "k": k}
    names |= {name: getattr(mt, name) for name in ("Spectra", "Plan", "freeze")}
    rows = [row.strip("|").split("|") for row in TABLE.splitlines() if row.startswith("|")][2:]
    said = {code: eval(code, names) for row in rows for code in re.findall("`([^`]+)`", row[2])}  # noqa: S307
    assert said["mpo.to_matrix()"].shape == (6, 6)
    assert said["shape.n_cores"] == 2 == len(mpo.cores)
    assert said["mpo.cores[k - 1]"] is mpo.cores[0]
    assert said["mpo.bonds"] == said["shape.full_bonds"] == (6,)
    assert said["mpo.central"] is mpo.cores[1]
    assert said["mpo.auxiliary"] == (mpo.cores[0],)
    np.testing.assert_allclose(said["Spectra.of(matrix, shape).values[k - 1]"], spectra.values[0])
    left_out = np.sqrt((spectra.values[0][2:] ** 2).sum())
    assert said["spectra.local_errors(bonds)[k - 1]"] == pytest.approx(left_out)
    assert said["spectra.bound(bonds)"] == pytest.approx(left_out)
    assert said["mpo.ratio"] == sum(core.numel() for core in mpo.cores) / 36
    assert said["spectra.entropies()[k - 1]"] == mt.entropy(spectra.values[0], "physics")
    assert said['spectra.entropies("paper")[k - 1]'] == mt.entropy(spectra.values[0], "paper")
    assert said["freeze"] is mt.freeze
    assert said["Plan(delta=0.05)"].delta == 0.05
