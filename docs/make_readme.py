"""Write the README's table and picture anew from the records: `make readme`."""

import re
from pathlib import Path

from mpo_tutorial import plots, results

ROOT = Path(__file__).parents[1]

demo = results.shipped("demo")
rows = [results.TableRow(**row) for row in demo["table"]]
alt_text = plots.demo_alt_text(rows, demo["curve"])
plots.save(plots.demo_picture(rows, demo["curve"], demo["chance"]), ROOT / "docs" / "tradeoff.png", alt_text)

parts = {
    "table": results.markdown_of_comparison(results.shipped("compare")),
    "picture": f"![{alt_text}](docs/tradeoff.png)",
}
readme = (ROOT / "README.md").read_text(encoding="utf-8")
for name, text in parts.items():
    block = f"<!-- {name} -->\n{text}\n<!-- end of {name} -->"
    readme, found = re.subn(rf"<!-- {name} -->.*<!-- end of {name} -->", lambda _, b=block: b, readme, flags=re.DOTALL)
    if found != 1:
        raise ValueError(f"the README must hold the mark <!-- {name} --> once, it holds it {found} times")
(ROOT / "README.md").write_text(readme, encoding="utf-8")
