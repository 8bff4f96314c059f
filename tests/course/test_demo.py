import torch

from mpo_tutorial.course.demo import truncation_curve
from mpo_tutorial.models.layers import mpo_layers
from mpo_tutorial.models.truncation import Cut


def test_the_curve_is_of_copies_each_cut_from_the_whole_model(tiny_tuned):
    model = tiny_tuned.model
    before = [core.clone() for layer in mpo_layers(model) for core in layer.cores]
    curve = truncation_curve(tiny_tuned.prepared, progress=False)
    after = [core for layer in mpo_layers(model) for core in layer.cores]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert curve[0]["max_bond"] == tiny_tuned.largest_bond > curve[-1]["max_bond"]
    for point in curve:
        cut = tiny_tuned.truncated(Cut(max_bond=point["max_bond"]))
        assert point["parameters"] == sum(layer.mpo.n_params for layer in mpo_layers(cut))
        assert point["validation"] == tiny_tuned.judge(cut)
