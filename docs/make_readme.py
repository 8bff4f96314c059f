"""Write the README's table and picture, and the benchmarks' tables, anew from the records: `make readme`."""

from pathlib import Path

from blocks import replace_block
from mpo_tutorial.course import bench_tables, figures, tables
from mpo_tutorial.experiments import records

ROOT = Path(__file__).parents[1]

demo = records.shipped("demo")
rows = [tables.TableRow(**row) for row in demo["table"]]
alt_text = figures.demo_alt_text(rows, demo["curve"])
figures.save(figures.demo_picture(rows, demo["curve"], demo["chance"]), ROOT / "docs" / "tradeoff.png", alt_text)

parts = {
    ("README.md", "table"): tables.markdown_of_comparison(records.shipped("compare")),
    ("README.md", "second"): tables.second_comparison(records.shipped("compare-3-epochs")),
    ("README.md", "picture"): f"![{alt_text}](docs/tradeoff.png)",
    ("benchmarks/README.md", "tables"): bench_tables.markdown(records.shipped("bench")),
}
for (path, name), text in parts.items():
    page = (ROOT / path).read_text(encoding="utf-8")
    (ROOT / path).write_text(replace_block(page, name, text), encoding="utf-8")
