"""Write the page that needs no installation, `make page`: one HTML file with matrices of a BERT, cut and rebuilt in the browser."""

import json
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

import mpo_tutorial as mt

ROOT = Path(__file__).parents[1]
PARTS = ROOT / "docs" / "page"
HEAVIEST = 5_000_000  # bytes
SHAPE = mt.Shape((3, 4, 4, 4, 2), (2, 4, 4, 4, 3))
LOCAL_BOND = 3
WAYS = {"plain": "plain cuts", "fitted": "fitted cuts", "two factors": "two factors"}


class Shown(NamedTuple):
    """A matrix of the page.

    Parameters
    ----------
    name, about : str
        For the list, and a sentence below it.
    mpo : MPO
        In the gauge that TT-SVD with the centre on the central core leaves: the values of every bond in their order.
    spectra : Spectra
    """

    name: str
    about: str
    mpo: mt.MPO
    spectra: mt.Spectra

    def as_dict(self) -> dict:
        cores = self.mpo.cores
        return {
            "name": self.name,
            "about": self.about,
            "inLegs": self.mpo.shape.in_legs,
            "outLegs": self.mpo.shape.out_legs,
            "stored": [1, *self.mpo.bonds, 1],
            "values": [[float(f"{value:.8g}") for value in values] for values in self.spectra.values],
            "cores": [b64encode(core.contiguous().numpy().tobytes()).decode() for core in cores],
        }


def local_matrix(seed: int = 0) -> torch.Tensor:
    """A sum of terms of which each touches two neighbouring digits, as the energy of a chain of magnets is: its bonds are 3."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, generator=generator) / (rows * columns) ** 0.25

    cores = []
    for rows, columns in zip(SHAPE.in_legs, SHAPE.out_legs, strict=True):
        still, begin, end = (drawn(rows, columns) for _ in range(3))
        core = torch.zeros(LOCAL_BOND, rows, columns, LOCAL_BOND)
        core[0, :, :, 0] = core[2, :, :, 2] = still  # no term has begun yet, or it is done
        core[0, :, :, 1], core[1, :, :, 2] = begin, end
        cores.append(core)
    cores[0], cores[-1] = cores[0][:1], cores[-1][..., 2:]
    return mt.MPO(tuple(cores)).to_matrix()


def matrices() -> list[Shown]:
    """A trained matrix, one that no training reached, and one that is made of local pieces."""
    bert = mt.load("minilm", pooling="pooler")[0].bert
    told = {
        "query, layer 1": (
            bert.encoder.layer[0].attention.self.query.weight,
            "The query matrix of the first layer. The stripes are its twelve heads, parts that work side by side, 32 columns each.",
        ),
        "feed-forward, layer 1 (a quarter)": (
            bert.encoder.layer[0].intermediate.dense.weight[: SHAPE.out_size],
            "In the first layer, the first 384 of the 1,536 columns of the matrix that widens.",
        ),
        "pooler": (
            bert.pooler.dense.weight,
            "A matrix that this model has and never uses: no training has touched it.",
        ),
    }
    found = [
        Shown(name, about, mt.MPO.from_matrix(matrix, SHAPE), mt.Spectra.of(matrix, SHAPE))
        for name, (weight, about) in told.items()
        for matrix in [weight.detach().T.contiguous()]
    ]
    local = local_matrix()
    spectra = mt.Spectra.of(local, SHAPE)
    short = tuple(min(LOCAL_BOND, bond) for bond in SHAPE.full_bonds)
    about = "No network has made this one: a sum of terms that each touch two neighbouring digits of row and column."
    return [*found, Shown("made of local pieces", about, mt.MPO.from_matrix(local, SHAPE, short), spectra)]


def model() -> dict:
    """AUC of the whole model, over seeds, against the share of its numbers: uncut, and a curve for each way to cut it."""
    summary = mt.cut_results.summarise(mt.shipped_points("cuts"))["summary"]
    curves = [
        {
            "name": name,
            "points": [
                {"ratio": row["ratio"], "auc": row["auc"]}
                for row in summary
                if row["way"] == way and row["part"] == "all"
            ],
        }
        for way, name in WAYS.items()
    ]
    return {"uncut": next(row["auc"] for row in summary if row["way"] == "uncut"), "curves": curves}


def tour(shown: list[Shown]) -> list[dict]:
    """Six steps: a title, a text, and what the page shows beside it."""
    query, pooler, local = 0, 2, 3
    full = SHAPE.full_bonds
    halved = tuple(bond // 2 for bond in full)
    cheap = tuple(min(LOCAL_BOND, bond) for bond in full)
    ratio = shown[query].mpo.ratio
    entropies = [", ".join(f"{value:.2f}" for value in shown[k].spectra.entropies()) for k in (pooler, query)]
    digits = " · ".join(map(str, SHAPE.in_legs))
    hundred = ", ".join(map(str, np.unravel_index(100, SHAPE.in_legs)))
    steps = [
        (
            "one matrix, five cores",
            "A moment is a number of seconds, or hours, minutes and seconds. In the same way a row number below "
            f"{SHAPE.in_size} can be written with five digits, which have {digits} = {SHAPE.in_size} possible values (they "
            f"stand below the cores, those of the columns above): row 100 is {hundred}. Choose a row and a column. Each core "
            "reads its two digits and gives a small table, as high and wide as the bonds beside it, and these five, "
            "multiplied, are the matrix's number there. Beside each core stands how many numbers it has. The one in the "
            "middle has as many as the whole matrix, so nothing is lost yet, and nothing saved: the chain has "
            f"{100 * ratio:.0f} % of the matrix's numbers.",
            query,
            full,
        ),
        (
            "cut one bond",
            "The second bond is cut to a half. All that the two cores on its left have to tell the three on its right must "
            "now pass through half the width. In the pictures you see what is lost. How much, stands below the chain: as a "
            "share of the norm, which is the size of a matrix, the root of the sum of its squares. Now move the slider "
            "yourself, by mouse or with the arrow keys.",
            query,
            (full[0], full[1] // 2, *full[2:]),
        ),
        (
            "cut them all",
            "Every bond is halved. (Half of the rebuilt matrix is white: the first bond had room for three of six blocks.) A "
            "bond has a list of values, largest first, one for each unit of its width; a cut keeps the first ones. The root "
            "of the sum of all squares that are thrown away is a bound: the error is never larger. (A bound above 100 % says "
            "nothing.) The entropy says how evenly a bond is used: it is at most the logarithm of its width, when all values "
            "are alike.",
            query,
            halved,
        ),
        (
            "a matrix made for chains",
            "This one was made by hand: a sum of terms, each of which works on two neighbouring digits and leaves the others "
            f"alone. Then little has to be told from core to core. All bonds are cut to {LOCAL_BOND}, and nothing is lost. "
            f"That is what chains are for. Now choose the query matrix in the list, and press the button for {LOCAL_BOND}. What "
            "will be left of it?",
            local,
            cheap,
        ),
        (
            "a matrix that has learnt nothing",
            "(Of the query matrix next to nothing was left. A matrix that was trained need not be made of pieces.) The pooler "
            f"was never trained: its numbers are those of a random start. Its entropies, uncut, are {entropies[0]}; the query's "
            f"are {entropies[1]}. They are closer than one would think. By this measure a trained matrix is hardly less random, and"
            " it is hardly easier to cut.",
            pooler,
            halved,
        ),
        (
            "so what is it good for?",
            "Look at the curves at the bottom. To store a model in fewer numbers, plain chains are a poor way: two thin "
            "factors keep more. The course goes another way. It cuts nothing, leaves the large core as it is, and trains the "
            "four small ones for a new task. Then a task is a few numbers to store instead of a whole model. Whether so few "
            "are enough is what the course measures.",
            query,
            full,
        ),
    ]
    return [{"title": title, "text": text, "matrix": index, "bonds": bonds} for title, text, index, bonds in steps]


def page() -> str:
    """The whole file."""
    shown = matrices()
    data = {"matrices": [one.as_dict() for one in shown], "model": model(), "tour": tour(shown)}
    fill = {
        "/* style */": (PARTS / "page.css").read_text(encoding="utf-8"),
        "/* data */": json.dumps(data, ensure_ascii=False).replace("</", "<\\/"),
        "/* chain */": (ROOT / "docs" / "book" / "chain.js").read_text(encoding="utf-8"),
        "/* page */": (PARTS / "page.js").read_text(encoding="utf-8"),
    }
    text = (PARTS / "page.html").read_text(encoding="utf-8")
    for place, content in fill.items():
        before, _, after = text.partition(place)
        text = before + content + after
    if len(text.encode()) > HEAVIEST:
        raise ValueError(f"the page may have {HEAVIEST:,} bytes, it has {len(text.encode()):,}")
    return text


if __name__ == "__main__":
    target = ROOT / "build" / "page.html"
    target.parent.mkdir(exist_ok=True)
    target.write_text(page(), encoding="utf-8")
    print(f"open {target.relative_to(ROOT)}")  # noqa: T201
