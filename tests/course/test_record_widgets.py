from matplotlib import pyplot as plt

from mpo_tutorial.course import widgets


def test_cuts_and_ledgers_are_chosen_from_lists(tiny_cuts):
    from mpo_tutorial.course.cut_explorers import DepthExplorer
    from mpo_tutorial.course.model_explorers import LedgerExplorer
    from mpo_tutorial.experiments.cut_results import summarise

    part, ratio, judged, shown = widgets.depth_explorer(DepthExplorer(summarise(tiny_cuts))).children
    for name in part.options:
        part.value = name
        for share in ratio.options:
            ratio.value = share
            assert f"Cut in {name}, {100 * share:.0f} % of its parameters left" in shown.value
    assert "AUC" not in shown.value.partition("<img")[0]
    judged.value = "auc"
    assert "after the last, AUC " in shown.value
    name, choice, shown = widgets.ledger_explorer(LedgerExplorer(["albert-base-v2"])).children
    for label in choice.options:
        choice.value = label
        assert "albert-base-v2: 11.7 M parameters" in shown.value
    assert not plt.get_fignums()


def test_the_tradeoff_is_measured_at_a_click():
    part, bond, judged, (button, bar), shown = (
        child.children if hasattr(child, "children") else child for child in widgets.tradeoff_explorer().children
    )
    assert "Measured" not in shown.value
    part.value, bond.value = "all", 96
    assert "Bonds of all matrices at most 96" in shown.value
    button.click()
    assert bar.value == 1
    assert "Measured here, on 300 of them: " in shown.value
    assert not button.disabled
    judged.value = "refitted"
    assert "Measured here, on 300 of them: accuracy, bias fitted again " in shown.value
    bond.value = 16
    assert "Measured here" not in shown.value
    assert not plt.get_fignums()
