"""Empty the notebooks that are named: no outputs, no counts, no widget state. Exits with 1 if one was not, as a hook should."""

import json
import sys
from pathlib import Path


def empty(page: str) -> str:
    """A notebook's text without what a run leaves in it; the same text if there is nothing."""
    notebook = json.loads(page)
    bare = json.loads(page)
    bare["metadata"].pop("widgets", None)
    for cell in bare["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return page if bare == notebook else json.dumps(bare, indent=1, ensure_ascii=False) + "\n"


def main(paths: list[str]) -> int:
    changed = 0
    for path in map(Path, paths):
        page = path.read_text(encoding="utf-8")
        if (bare := empty(page)) != page:
            path.write_text(bare, encoding="utf-8")
            print(f"emptied {path}")  # noqa: T201
            changed = 1
    return changed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
