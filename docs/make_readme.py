"""Write the README's table and picture, and the benchmarks' tables, anew from the records: `make readme`."""

from pathlib import Path

from blocks import replace_block
from mpo_tutorial.course import bench_tables, figures, gpu_tables, tables
from mpo_tutorial.course.demo import beside_full
from mpo_tutorial.experiments import records
from mpo_tutorial.experiments.bench import summarise
from mpo_tutorial.experiments.light import LIGHT
from outer_links import as_list

ROOT = Path(__file__).parents[1]

# Of the comparison, in the README.
SHOWN = ("light", "full", "light, as the paper counts", "random subspace", "BitFit", "logistic probe")


def main() -> None:
    demo = records.shipped("demo")
    rows, _ = beside_full(demo["light"], demo["full"])
    alt_text = figures.demo_alt_text(rows, demo["curve"])
    figures.save(figures.demo_picture(rows, demo["curve"], demo["chance"]), ROOT / "docs" / "tradeoff.png", alt_text)

    parts = {
        ("README.md", "table"): tables.markdown_of_comparison(records.shipped_points(LIGHT.name), LIGHT, SHOWN),
        ("README.md", "picture"): f"![{alt_text}](docs/tradeoff.png)",
        ("docs/online.md", "links"): as_list(),
        ("benchmarks/README.md", "tables"): bench_tables.markdown(summarise(records.shipped_points("bench"))),
        ("benchmarks/README.md", "gpu"): gpu_tables.markdown(gpu_tables.shipped()),
        ("README.md", "gpu"): gpu_tables.in_a_line(gpu_tables.shipped()),
    }
    for (path, name), text in parts.items():
        page = (ROOT / path).read_text(encoding="utf-8")
        (ROOT / path).write_text(replace_block(page, name, text), encoding="utf-8")


if __name__ == "__main__":
    main()
