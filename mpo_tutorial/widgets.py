"""Controls over the explorers. Only what ipywidgets 7.7 and 8 share."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from mpo_tutorial import plots
from mpo_tutorial.explorers import RankExplorer

if TYPE_CHECKING:
    from ipywidgets import Widget


def rank_explorer(matrix: np.ndarray, rank: int = 1) -> "Widget":
    """A slider for the rank; picture, error and number of parameters follow it.

    A matrix that cannot be decomposed gets a sentence in the widget's place.
    """
    import ipywidgets

    try:
        explorer = RankExplorer(matrix)
    except ValueError as error:
        return ipywidgets.HTML(f"<p>{escape(str(error))}</p>")
    slider = ipywidgets.IntSlider(
        value=rank, min=1, max=explorer.largest_rank, description="rank", continuous_update=False
    )
    shown = ipywidgets.HTML()

    def update(_=None) -> None:
        words = explorer.in_words(slider.value)
        shown.value = f"<p>{escape(words)}</p>{plots.html(explorer.figure(slider.value), words)}"

    slider.observe(update, names="value")
    update()
    return ipywidgets.VBox([slider, shown])
