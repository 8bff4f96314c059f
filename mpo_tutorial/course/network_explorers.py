"""What an FC2 whose first layer is an MPO scores on record, bond by bond, and where its capacity sits."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from mpo_tutorial.course import network_figures, plots
from mpo_tutorial.course.tables import per_cent
from mpo_tutorial.experiments.network_study import BONDS, DENSE
from mpo_tutorial.models.networks import fc2_layers


class NetworkExplorer:
    """The bond dimension turned: numbers, accuracy, and the entropies of the trained chain beside those of a random one.

    Parameters
    ----------
    summary : mapping
        As `compare.summarise` gives it of the study `networks`.
    """

    def __init__(self, summary: Mapping):
        self.summary = summary
        self.names = {
            bond: f"FC2, MPO, bond {bond}" for bond in BONDS if f"FC2, MPO, bond {bond}" in summary["variants"]
        }

    @property
    def bonds(self) -> list[int]:
        return [*self.names]

    def entropies(self, bond: int) -> dict[str, np.ndarray]:
        """Of the first layer's bonds, in nats, means over the seeds, "trained" after training and "random" before."""
        points = self.summary["final"][self.names[bond]]
        found = {told: [point["result"]["entropies"][when] for point in points] for told, when in _TOLD.items()}
        return {told: np.mean(values, axis=0) for told, values in found.items()}

    def in_words(self, bond: int) -> str:
        first, _ = fc2_layers(bond)
        ours, dense = (self.summary["variants"][name]["test"] for name in (self.names[bond], DENSE))
        share = 100 * first.n_params / first.n_dense
        entropies = ", ".join(f"{value:.2f}" for value in self.entropies(bond)["trained"])
        return (
            f"Bond dimension {bond}: {first.n_params:,} numbers in the first layer, {share:.2g} % of the dense one's "
            f"{first.n_dense:,}. {per_cent(ours)} % of the test images right, the dense network {per_cent(dense)} %. Entropies of "
            f"its bonds after training: {entropies} nats."
        )

    def figure(self, bond: int) -> Figure:
        """Accuracies up to a bond, so that one can guess what comes next, and the entropies at it."""
        first, _ = fc2_layers(bond)
        with plots.styled(2, (10, 5.4)) as (figure, (left, right)):
            network_figures.accuracy_by_bond(left, self.summary, self.names, DENSE, bond)
            plots.bond_entropies(right, self.entropies(bond), first.shape.caps(bond))
            right.set_ylim(top=1.05 * np.log(max(self.bonds)))  # the same for all, so that bonds can be compared
        return figure


_TOLD = {"trained": "after", "random": "before"}
