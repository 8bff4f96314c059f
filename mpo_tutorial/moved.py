"""Where names of before there were rooms are now: whoever uses one is told."""

import sys
from importlib.abc import MetaPathFinder

MOVED = {
    "architectures": "mpo_tutorial.models.architectures",
    "bench": "mpo_tutorial.experiments.bench",
    "bench_tables": "mpo_tutorial.course.bench_tables",
    "budget": "mpo_tutorial.maths.budget",
    "checkpoint": "mpo_tutorial.experiments.checkpoint",
    "compare": "mpo_tutorial.experiments.compare",
    "config": "mpo_tutorial.experiments.config",
    "contraction": "mpo_tutorial.maths.contraction",
    "data": "mpo_tutorial.experiments.tasks",
    "degradation": "mpo_tutorial.experiments.cuts",
    "demo": "mpo_tutorial.course.demo",
    "entropy": "mpo_tutorial.maths.entropy",
    "exercises": "mpo_tutorial.course.exercises",
    "explorers": "mpo_tutorial.course.explorers",
    "families": "mpo_tutorial.models.families",
    "finetune": "mpo_tutorial.experiments.finetune",
    "fitting": "mpo_tutorial.maths.fitting",
    "glue": "mpo_tutorial.experiments.glue",
    "layers": "mpo_tutorial.models.layers",
    "ledger": "mpo_tutorial.models.ledger",
    "linalg": "mpo_tutorial.maths.linalg",
    "metrics": "mpo_tutorial.experiments.statistics",
    "model": "mpo_tutorial.models.convert and loading",
    "model_explorers": "mpo_tutorial.course.model_explorers",
    "mpo": "mpo_tutorial.maths.mpo",
    "notebook": "mpo_tutorial.course.notebook",
    "paper": "mpo_tutorial.paper_shape",
    "plots": "mpo_tutorial.course.plots",
    "report": "mpo_tutorial.models.look and experiments.compress",
    "result_plots": "mpo_tutorial.course.figures",
    "results": "mpo_tutorial.experiments.records, statistics and course.tables",
    "shapes": "mpo_tutorial.maths.shapes",
    "sources": "mpo_tutorial.models.sources",
    "states": "mpo_tutorial.maths.states",
    "stored": "mpo_tutorial.models.stored",
    "tradeoff": "mpo_tutorial.experiments.tuned and cuts",
    "training": "mpo_tutorial.experiments.training",
    "truncation": "mpo_tutorial.models.truncation",
    "widgets": "mpo_tutorial.course.widgets",
}


class _Signpost(MetaPathFinder):
    """Asked after all others: an import of an old module fails with the new one's name."""

    def find_spec(self, fullname: str, path, target=None) -> None:
        package, _, name = fullname.partition(".")
        if package == "mpo_tutorial" and name in MOVED:
            raise ModuleNotFoundError(f"{fullname} is now {MOVED[name]}", name=fullname)


sys.meta_path.append(_Signpost())
