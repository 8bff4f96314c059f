"""Chapter 05: can a network live as MPOs from the start?"""

from collections.abc import Sequence
from itertools import count
from math import log

import numpy as np

from mpo_tutorial.course.exercises import Exercise
from mpo_tutorial.course.exercises.chapter_04 import page
from mpo_tutorial.maths.contraction import chained_multiplications
from mpo_tutorial.maths.shapes import Shape
from mpo_tutorial.models.layers import Chained
from mpo_tutorial.models.networks import fc2_layers, ratio

SMALL = Shape((4, 4), (4, 4))  # of the fourth exercise


def _as_large_as_the_matrix(capped: bool = True) -> int:
    """The first bond at which the chain of FC2's first layer has as many numbers as the matrix, or more."""
    layer = fc2_layers(1)[0]
    size = (
        (lambda bond: layer.shape.n_params(layer.shape.caps(bond)))
        if capped
        else (lambda bond: 32 * bond + 56 * bond**2)
    )
    return next(bond for bond in count(1) if size(bond) >= layer.n_dense)


def forward(x: np.ndarray, cores: Sequence[np.ndarray]) -> np.ndarray:
    """Rows of x, of shape (n, in), through a chain of cores of shape (left, in leg, out leg, right), one after the other."""
    state = x.reshape(len(x), 1, 1, -1)  # row, out legs done, bond, in legs to do
    for core in cores:
        left, i, _, _ = core.shape
        state = state.reshape(len(x), -1, left, i, state.shape[-1] // i)
        state = np.einsum("zobit,bijr->zojrt", state, core)
        state = state.reshape(len(x), -1, *state.shape[-2:])
    return state.reshape(len(x), -1)


def _matrix(cores: Sequence[np.ndarray]) -> np.ndarray:
    eye = np.eye(int(np.prod([core.shape[1] for core in cores])))
    return forward(eye, cores)


def _sides_swapped(x: np.ndarray, cores: Sequence[np.ndarray]) -> np.ndarray:
    swapped = [core.swapaxes(1, 2) for core in cores]
    rows, columns = (int(np.prod([core.shape[axis] for core in swapped])) for axis in (1, 2))
    return forward(x, swapped) if rows == x.shape[1] else np.full((len(x), columns), np.nan)


def _last_leg_first(x: np.ndarray, cores: Sequence[np.ndarray]) -> np.ndarray:
    """The in legs of x taken in the order of the last core to the first."""
    legs = [core.shape[1] for core in cores]
    turned = x.reshape(len(x), *legs[::-1]).transpose(0, *range(len(legs), 0, -1)).reshape(len(x), -1)
    return forward(turned, cores)


def _outs_backwards(x: np.ndarray, cores: Sequence[np.ndarray]) -> np.ndarray:
    """As it comes out where each new out leg is put before those that are done."""
    legs = [core.shape[2] for core in cores]
    return forward(x, cores).reshape(len(x), *legs).transpose(0, *range(len(legs), 0, -1)).reshape(len(x), -1)


EXERCISES = (
    Exercise(
        question="numbers in the two MPOs of FC2 at D = 16",
        answer=lambda: sum(layer.n_params for layer in fc2_layers(16)),
        solution=(
            "# A core has bond x in leg x out leg x bond numbers. The outer bonds are 1.\n"
            "first = 1 * 4 * 4 * 16 + 16 * 7 * 4 * 16 + 16 * 7 * 4 * 16 + 16 * 4 * 4 * 1\n"
            "second = 1 * 4 * 1 * 4 + 4 * 4 * 1 * 4 + 4 * 4 * 10 * 4 + 4 * 4 * 1 * 1\n"
            "first + second"
        ),
        hint="Four cores a layer. Each has as many numbers as its two bonds and two legs multiplied; the outer bonds are 1.",
        mistakes=[
            (
                lambda: fc2_layers(16)[0].n_params,
                "That is the first layer alone. The second is an MPO, too, with bonds of 4.",
            ),
            (
                lambda: sum(layer.n_params for layer in fc2_layers(16)) + 256 + 10,
                "Right, with the biases. Here the question is for the numbers in the MPOs.",
            ),
            (
                lambda: 4 * 16 * 7 * 4 * 16 + 4 * 4 * 4 * 4 * 4,
                "The cores are not all of one size: look at their legs, and at the ends.",
            ),
            (lambda: fc2_layers(16)[1].n_params, "That is the second layer alone."),
            (lambda: 784 * 256 + 256 * 10, "Those are the dense matrices."),
            (lambda: sum(layer.n_params for layer in fc2_layers(2)), "That is for a bond of 2 in the first layer."),
            (
                lambda: fc2_layers(16)[0].n_params + Chained((4, 4, 4, 4), (1, 1, 10, 1), 16).n_params,
                "The second layer has bonds of 4: that is the number in its brackets.",
            ),
            (lambda: 13, "That is how many times fewer they are. Here the question is for the numbers themselves."),
            (lambda: ratio(fc2_layers(16)), "That is the share. Here the question is for the numbers themselves."),
        ],
    ),
    Exercise(
        question="the bond from which on FC2's first chain has as many numbers as its matrix",
        answer=_as_large_as_the_matrix,
        solution=(
            "# The outer bonds can be 16 at most: there are 4 x 4 cases on that side. Above 16 only the middle bond D grows.\n"
            "# The cores at the ends have 4 * 4 * 16 each, the two inner ones 16 * 28 * D: 512 + 896 D\n"
            "int(np.ceil((784 * 256 - 512) / 896))"
        ),
        hint="How wide can the first bond be? On its left there are a leg of 4 and a leg of 4. Above that, only one bond grows.",
        mistakes=[
            (
                lambda: _as_large_as_the_matrix(capped=False),
                "So it would be if all three bonds could grow. The first can be 16 at most, and so can the last: 4 x 4 cases.",
            ),
            (
                lambda: _as_large_as_the_matrix(capped=False) - 1,
                "You let all three bonds grow, and rounded down. The first can be 16 at most, and so can the last: 4 x 4 cases.",
            ),
            (lambda: 16, "That is the most that an outer bond can be. Above it, the middle one goes on growing."),
            (
                lambda: 448,
                "That is the most that the middle bond can be. The chain is as large as its matrix long before.",
            ),
            (lambda: 256, "That is how many units there are. Count the cores: two of 4 x 4 x 16, two of 16 x 28 x D."),
            (lambda: _as_large_as_the_matrix() - 1, "There it still has a few numbers fewer."),
            (lambda: _as_large_as_the_matrix() + 1, "One bond less is enough: there it has as many already."),
        ],
    ),
    Exercise(
        question="a function forward(x, cores) that sends rows through a chain",
        answer=lambda: forward,
        solution=(
            "def forward(x, cores):\n"
            "    # row, out legs that are done, bond, in legs that are still to do\n"
            "    state = x.reshape(len(x), 1, 1, -1)\n"
            "    for core in cores:\n"
            "        left, i, j, right = core.shape\n"
            "        state = state.reshape(len(x), -1, left, i, state.shape[-1] // i)\n"
            '        state = np.einsum("zobit,bijr->zojrt", state, core)\n'
            "        state = state.reshape(len(x), -1, right, state.shape[-1])\n"
            "    return state.reshape(len(x), -1)"
        ),
        hint=(
            "Keep a tensor with four axes: the row, the out legs that are done, the bond, the in legs that are still to do. Each "
            "core takes the first leg off the last axis, sums over it and over the bond, and adds its out leg to the second axis."
        ),
        mistakes=[
            (
                lambda: _sides_swapped,
                "In leg and out leg are the wrong way round: a core has the axes (left, in, out, right).",
            ),
            (
                lambda: _last_leg_first,
                "The first core belongs to the first leg of x, the one that changes slowest along a row.",
            ),
            (
                lambda: _outs_backwards,
                "The out legs come in the wrong order: the first core's is the one that changes slowest.",
            ),
        ],
        trials=[
            "np.eye(6), [np.cos(np.arange(8.0)).reshape(1, 2, 2, 2), np.sin(np.arange(18.0)).reshape(2, 3, 3, 1)]",
            "np.arange(8.0).reshape(2, 4), [np.cos(np.arange(12.0)).reshape(1, 4, 3, 1)]",
            "np.eye(12), [np.cos(np.arange(12.0)).reshape(1, 2, 2, 3), np.sin(np.arange(36.0)).reshape(3, 3, 2, 2), "
            "np.cos(np.arange(12.0)).reshape(2, 2, 3, 1)]",
        ],
    ),
    Exercise(
        question="Page's estimate for the entropy of a bond of 8 beside a random core of 16 x 8",
        answer=lambda: page(16, 8),
        solution="# m = 8, n = 16\nnp.log(8) - 8 / (2 * 16)",
        hint="ln m - m / (2 n), where m is the smaller side of the core, and n the larger one.",
        mistakes=[
            (lambda: log(8), "That is the most that a bond of 8 can carry. Random numbers stay below."),
            (lambda: log(16) - 16 / (2 * 8), "m is the smaller of the two sides."),
            (lambda: log(8) - 8 / 16, "Below the line stands 2 n: twice the larger side."),
            (lambda: page(448, 8), "That is for a core on either side of the middle bond. Here it has 16 rows."),
            (lambda: page(16, 8) / log(2), "That is in bits. We count in nats, with ln."),
        ],
    ),
    Exercise(
        question="multiplications for one row of 16 numbers through a chain with legs 4.4 and 4.4 and a bond of 2",
        answer=lambda: chained_multiplications(SMALL, (2,)),
        solution=(
            "# First core: 4 places of the other leg, each with 4 numbers in, 4 out, 2 bonds.\n"
            "# Second core: 4 out legs done, each with 2 bonds and 4 numbers in, 4 out.\n"
            "4 * (4 * 4 * 2) + 4 * (2 * 4 * 4)"
        ),
        hint="Go core by core. Each number that comes out is a sum over one in leg and one bond: count numbers and terms.",
        mistakes=[
            (
                lambda: chained_multiplications(SMALL, (1,)),
                "You have half of it: the first core alone, or both at a bond of 1.",
            ),
            (
                lambda: 2 * chained_multiplications(SMALL, (2,)),
                "You counted additions as well. Multiplications alone, please.",
            ),
            (
                lambda: 2 * (4 * 4 * 2),
                "Those are the numbers in the cores. Each is used several times: once for each place of the other leg.",
            ),
        ],
    ),
)
