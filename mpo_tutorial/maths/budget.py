"""Sharing out a budget: the bonds of many matrices that lose least together.

The paper leaves open how far each matrix should be cut. Its Eq. 4 makes the question well posed: the squared error of a
matrix is at most the sum of what each of its bonds discards, and that is known from Schmidt values computed once. A bond that
its neighbours force discards nothing of its own. The parameters, too, are a sum, over neighbouring bonds. So the bonds of all
matrices, one after the other, are a path, and the best bonds under a budget are a shortest path with a constraint.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mpo_tutorial.maths.entropy import Spectra

MOST_LABELS = 3000


@dataclass(frozen=True)
class Allocation:
    """Bonds for many matrices, what they cost and what they lose.

    Parameters
    ----------
    bonds : dict of tuples
        The inner bonds of each matrix.
    n_params : int
        Parameters of all cores.
    squared_error : float
        Bound on the sum of the squared errors (Eq. 4, squared), each in units of its matrix's squared norm if `relative`.
    at_best : float
        No bonds within the budget have a squared error (or, with an error given, a number of parameters) below this. If it
        is what these have, they are the best.
    """

    bonds: dict[str, tuple[int, ...]]
    n_params: int
    squared_error: float
    at_best: float


def allocate(
    spectra: Mapping[str, Spectra],
    *,
    n_params: int | None = None,
    squared_error: float | None = None,
    relative: bool = True,
    tolerance: float = 1e-3,
) -> Allocation:
    """The bonds that lose least with at most `n_params` parameters, or need least to lose at most `squared_error`.

    A Lagrange multiplier first: the price of a parameter for which the cheapest path just keeps to the budget. It gives
    bonds, and proves how much better any others could be. If that gap exceeds the tolerance, a search over all paths that
    could still be better closes it; with few and small matrices it ends with the best, and with many it keeps the
    most promising and says by `at_best` what it left unproved.

    Parameters
    ----------
    spectra : mapping of names to Spectra
    n_params : int, optional
    squared_error : float, optional
        Exactly one of the two.
    relative : bool
        Count the error of each matrix relative to its squared norm.
    tolerance : float
        Relative gap at which to stop; with 0 the search always runs.

    Raises
    ------
    ValueError
        If not exactly one limit is given, there is no matrix, or the limit cannot be met; the message says how far it can go.
    """
    if n_params is not None and squared_error is None:
        limited, limit = "n_params", n_params
    elif squared_error is not None and n_params is None:
        limited, limit = "squared_error", squared_error
    else:
        raise ValueError(f"give either n_params or squared_error, got {n_params!r} and {squared_error!r}")
    if not spectra:
        raise ValueError("there is no matrix to share the budget among")
    if not 0 <= tolerance < 1:
        raise ValueError(f"a tolerance lies in [0, 1), got {tolerance!r}")
    chain = _Chain(spectra, relative, by_error=limited == "squared_error")
    least = chain.totals(chain.shortest(1.0, 0.0)[0])[1]
    if not limit >= least:
        raise ValueError(f"{limited} cannot be below {least} for these matrices, got {limit!r}")
    path, bound, price = _lagrange(chain, limit)
    best = chain.totals(path)[0]
    if best - bound > tolerance * best:
        path, proved = _search(chain, limit, path, price)
        best = chain.totals(path)[0]
        bound = best if proved else min(bound, best)
    return Allocation(chain.bonds_by_name(path), *chain.params_and_error(path), float(bound))


class _Chain:
    """All matrices as one path: node t is the t-th bond, with a bond of 1 between matrices and at the ends.

    A bond that a neighbour forces is not cut for itself and loses nothing (`Shape.to_cut`). Whether the bond before forces it is
    seen on the way; that the bond after it will has to be decided in advance, and such a node is written as minus the bond. The
    goal is what is made small, the load what is limited: error and parameters, or the other way round.
    """

    def __init__(self, spectra: Mapping[str, Spectra], relative: bool, by_error: bool):
        self.names, self.pairs, self.errors = [], [], []
        self.by_error = by_error
        self._found: dict[tuple[int, int, int], np.ndarray] = {}
        for name, spectrum in spectra.items():
            unit = spectrum.norm**2 if relative and spectrum.norm else 1.0
            shape = spectrum.shape
            self.names += [name] * shape.n_cores
            self.pairs += shape.pairs
            self.errors += [*(weights / unit for weights in spectrum.discarded()), np.zeros(1)]

    def params(self, t: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Parameters of the core between two nodes; infinite where the bond of one is larger than it can use."""
        return _params(self.pairs[t], np.abs(before), np.abs(after))

    def error(self, t: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """What the node `after` loses, coming from the node `before`; infinite where one cannot follow the other.

        A pair of 1 lets neighbours force each other: then one of the two is cut.
        """
        pair, bond = self.pairs[t], np.abs(after)
        waits, free = before < 0, (after < 0) | ((before > 0) & (bond == before * pair))
        lost = np.where(free, 0.0, self.errors[t][bond - 1])
        return np.where(waits & (np.abs(before) != bond * pair), np.inf, lost)

    def nodes(self, t: int) -> np.ndarray:
        """All that may stand at place t; -1 is the place before the first. Between two matrices no bond is forced."""
        bonds = self._bonds(t)
        return bonds if len(bonds) == 1 else np.concatenate([bonds, -bonds])

    def goal_and_load(self, params: Any, error: Any) -> tuple[Any, Any]:
        """Numbers or arrays, in the order of the two."""
        return (params, error) if self.by_error else (error, params)

    def shortest(self, price: float, goal_weight: float = 1.0) -> tuple[list[int], list[np.ndarray]]:
        """The path of least goal_weight * goal + price * load, and that of what lies ahead of every node."""
        error_weight, params_weight = (price, goal_weight) if self.by_error else (goal_weight, price)
        ahead, choices = [np.zeros(1)], []
        for t in reversed(range(len(self.pairs))):
            befores, afters, pair = self._bonds(t - 1), self._bonds(t), self.pairs[t]
            now, waiting = ahead[-1][: len(afters)], ahead[-1][len(afters) :]
            value, node = error_weight * self.errors[t] + now, np.arange(len(afters))
            if len(waiting):
                node = np.where(waiting < value, node + len(afters), node)
                value = np.minimum(waiting, value)
            params = self._params(len(befores), len(afters), pair)
            cost = (params_weight * params if params_weight else np.where(np.isinf(params), params, 0.0)) + value
            best = cost.argmin(1)
            choice, cost = node[best], cost[befores - 1, best]
            rows = np.flatnonzero(befores * pair <= len(afters))  # the bond after these may be forced by them
            forced = befores[rows] * pair - 1
            found = params_weight * params[rows, forced] + now[forced]
            better = found < cost[rows]
            cost[rows[better]], choice[rows[better]] = found[better], forced[better]
            if len(befores) > 1:  # the same, where the bond before waits to be forced
                rows = np.flatnonzero((befores % pair == 0) & (befores <= len(afters) * pair))
                wanted = befores[rows] // pair - 1
                waits, ahead_of = np.full(len(befores), np.inf), np.zeros(len(befores), int)
                waits[rows], ahead_of[rows] = params_weight * params[rows, wanted] + value[wanted], node[wanted]
                cost, choice = np.append(cost, waits), np.append(choice, ahead_of)
            choices.append(choice)
            ahead.append(cost)
        path, place = [1], 0
        for t, choice in enumerate(reversed(choices)):
            place = int(choice[place])
            path.append(int(self.nodes(t)[place]))
        return path, ahead[::-1]

    def _bonds(self, t: int) -> np.ndarray:
        return np.arange(1, (len(self.errors[t]) if t >= 0 else 1) + 1)

    def _params(self, befores: int, afters: int, pair: int) -> np.ndarray:
        """Of all pairs of bonds up to these."""
        key = (befores, afters, pair)
        if key not in self._found:
            self._found[key] = _params(pair, np.arange(1, befores + 1)[:, None], np.arange(1, afters + 1))
        return self._found[key]

    def params_and_error(self, path: list[int]) -> tuple[int, float]:
        steps = list(zip(pairwise(path), self.pairs, strict=True))
        params = sum(abs(before) * pair * abs(after) for (before, after), pair in steps)
        lost = (self.error(t, np.array(b), np.array(a)) for t, ((b, a), _) in enumerate(steps))
        return params, float(sum(lost))

    def totals(self, path: list[int]) -> tuple[float, float]:
        """Goal and load of a path."""
        return self.goal_and_load(*self.params_and_error(path))

    def bonds_by_name(self, path: list[int]) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = dict.fromkeys(self.names, ())
        for name, bond in zip(self.names, path[1:], strict=True):
            found[name] += (abs(bond),)
        return {name: bonds[:-1] for name, bonds in found.items()}


def _params(pair: int, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    usable = (after <= before * pair) & (before <= after * pair)
    return np.where(usable, 1.0 * before * pair * after, np.inf)


def _lagrange(chain: _Chain, limit: float) -> tuple[list[int], float, float]:
    """A path within the limit, a bound below every other's goal, and the price of load that proves it."""
    over = chain.shortest(0.0)[0]
    if chain.totals(over)[1] <= limit:
        return over, chain.totals(over)[0], 0.0
    within = chain.shortest(1.0, 0.0)[0]
    while True:
        (goal_over, load_over), (goal_within, load_within) = chain.totals(over), chain.totals(within)
        price = (goal_within - goal_over) / (load_over - load_within)
        path = chain.shortest(price)[0]
        goal, load = chain.totals(path)
        if goal + price * load >= (goal_within + price * load_within) * (1 - 1e-12):
            return within, goal_within + price * (load_within - limit), price
        if load <= limit:
            within = path
        else:
            over = path


def _search(chain: _Chain, limit: float, best: list[int], price: float) -> tuple[list[int], bool]:
    """The best path within the limit, and whether no promising one was left out for there being too many.

    Goes along the chain with labels: the goal and load of a path so far. A label goes if another at the same bond has less
    of both, or if what lies ahead at least costs too much load, or, at the price, too much of the goal.
    """
    to_beat = chain.totals(best)[0]
    ahead = chain.shortest(price)[1]
    load_ahead = chain.shortest(1.0, 0.0)[1]
    bond, goal, load, proved = np.array([1]), np.zeros(1), np.zeros(1), True
    history = []
    for t in range(len(chain.pairs)):
        found = []
        for place, after in enumerate(chain.nodes(t)):
            params, error = chain.params(t, bond, after), chain.error(t, bond, after)
            more_goal, more_load = chain.goal_and_load(params, error)
            new_goal, new_load = goal + more_goal, load + more_load
            promise = new_goal + price * (new_load - limit) + ahead[t + 1][place]
            hopeful = (promise < to_beat) & (new_load + load_ahead[t + 1][place] <= limit)
            kept = np.flatnonzero(hopeful & np.isfinite(new_goal + new_load))
            kept = kept[np.lexsort((new_load[kept], new_goal[kept]))]
            lowest = np.minimum.accumulate(np.append(np.inf, new_load[kept]))
            kept = kept[new_load[kept] < lowest[:-1]]
            found += [(promise[k], after, new_goal[k], new_load[k], k) for k in kept]
        if not found:
            return best, proved
        if len(found) > MOST_LABELS:
            found, proved = sorted(found)[:MOST_LABELS], False
        _, bond, goal, load, parent = map(np.array, zip(*found, strict=True))
        history.append((bond, parent))
    path, k = [], int(goal.argmin())
    for bonds, parents in reversed(history):
        path.append(int(bonds[k]))
        k = int(parents[k])
    path = [1, *reversed(path)]
    return (path, proved) if chain.totals(path)[1] <= limit else (best, False)  # rounding


def cubic_schedule(start: float, end: float, steps: int) -> list[float]:
    """How much is left after each of some steps that take much at first and ever less (Zhu and Gupta 2017; PEFT's AdaLoRA).

    After step t of n it is end + (start - end) (1 - t / n)^3.

    >>> cubic_schedule(800, 0, 2)
    [100.0, 0.0]

    Raises
    ------
    ValueError
        If there is no step, or the end lies above the start.
    """
    if steps < 1 or end > start:
        raise ValueError(f"a schedule leads down in one step or more, got {start} to {end} in {steps}")
    return [end + (start - end) * (1 - t / steps) ** 3 for t in range(1, steps + 1)]
