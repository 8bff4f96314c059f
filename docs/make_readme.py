"""Write the README's table and picture, and the benchmarks' tables, anew from the records: `make readme`."""

import re
from pathlib import Path

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
    block = f"<!-- {name} -->\n{text}\n<!-- end of {name} -->"
    page, found = re.subn(rf"<!-- {name} -->.*<!-- end of {name} -->", lambda _, b=block: b, page, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"{path} must hold the mark <!-- {name} --> once, it holds it {found} times")
    (ROOT / path).write_text(page, encoding="utf-8")
