"""Write the README's table and picture, and the benchmarks' tables, anew from the records: `make readme`."""

from pathlib import Path

from blocks import replace_block
from mpo_tutorial import bench_tables, plots, results

ROOT = Path(__file__).parents[1]

demo = results.shipped("demo")
rows = [results.TableRow(**row) for row in demo["table"]]
alt_text = plots.demo_alt_text(rows, demo["curve"])
plots.save(plots.demo_picture(rows, demo["curve"], demo["chance"]), ROOT / "docs" / "tradeoff.png", alt_text)

parts = {
    ("README.md", "table"): results.markdown_of_comparison(results.shipped("compare")),
    ("README.md", "second"): results.second_comparison(results.shipped("compare-3-epochs")),
    ("README.md", "picture"): f"![{alt_text}](docs/tradeoff.png)",
    ("benchmarks/README.md", "tables"): bench_tables.markdown(results.shipped("bench")),
}
for (path, name), text in parts.items():
    page = (ROOT / path).read_text(encoding="utf-8")
    (ROOT / path).write_text(replace_block(page, name, text), encoding="utf-8")
