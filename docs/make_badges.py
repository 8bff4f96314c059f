"""Write the repository's address and tag from pyproject.toml wherever they lead into the course: `make badges`."""

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from blocks import replace_block

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class WaysIn:
    """What pyproject.toml says of the repository.

    Parameters
    ----------
    address : str
        "https://github.com/ACCOUNT/NAME"
    tag : str
        What Colab and Binder open.
    colab_lacks : tuple of str
        The requirements that Colab does not come with, besides this package.
    """

    address: str
    tag: str
    colab_lacks: tuple[str, ...]

    @classmethod
    def read(cls, root: Path) -> "WaysIn":
        pyproject = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
        project, ours = pyproject["project"], pyproject["tool"]["mpo_tutorial"]
        address = project["urls"]["Repository"]
        if not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+(?<!\.git)", address):
            raise ValueError(
                f"Repository in pyproject.toml must be https://github.com/ACCOUNT/NAME, as Colab takes it, got {address!r}"
            )
        by_name = {re.match(r"[\w.-]+", line)[0]: line for line in project["dependencies"]}
        lacking = [by_name[name] for name in ours["colab-lacks"]]
        return cls(address, ours["tag"], (*lacking, *project["optional-dependencies"]["offline"]))

    def file(self, path: str) -> str:
        """The address of a file of the repository."""
        return f"{self.address}/blob/{self.tag}/{path}"

    def badges(self, notebook: str, up: str = "") -> str:
        """Two pictures that open a notebook; `up` leads from their page to the repository's root."""
        repository = self.address.removeprefix("https://github.com/")
        colab = f"https://colab.research.google.com/github/{repository}/blob/{self.tag}/notebooks/{notebook}"
        binder = f"https://mybinder.org/v2/gh/{repository}/{self.tag}?urlpath=lab/tree/notebooks/{notebook}"
        return (
            f"[![Open in Colab]({up}docs/badges/colab.svg)]({colab})\n"
            f"[![Open in Binder]({up}docs/badges/binder.svg)]({binder})"
        )

    def install_on_colab(self) -> str:
        """The command of a chapter's first cell. --no-deps, or else it exchanges Colab's torch and asks for a restart."""
        quoted = " ".join(f'"{requirement}"' for requirement in self.colab_lacks)
        return f"%pip install -q --no-deps git+{self.address}@{self.tag} \\\n        {quoted}"


def notebook_page(page: str, name: str, ways: WaysIn) -> str:
    """A notebook with its badges and its command for Colab."""
    notebook = json.loads(page)
    first, set_up = notebook["cells"][:2]
    text = replace_block("".join(first["source"]), "badges", ways.badges(name, up="../"))
    first["source"] = text.splitlines(keepends=True)
    code = _replace_once(r"%pip install (?:.*\\\n)*.*", ways.install_on_colab(), "".join(set_up["source"]))
    set_up["source"] = code.splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def readme_page(page: str, ways: WaysIn) -> str:
    """The README with its badges and its first command."""
    page = replace_block(page, "badges", ways.badges("00_start_here.ipynb"))
    return _replace_once(r"git clone \S+ mpo_tutorial", f"git clone {ways.address} mpo_tutorial", page)


def pages(root: Path) -> dict[Path, str]:
    """Every file that leads into the course, and what it has to hold."""
    ways = WaysIn.read(root)
    readme = root / "README.md"
    texts = {readme: readme_page(readme.read_text(encoding="utf-8"), ways)}
    for path in sorted((root / "notebooks").glob("*.ipynb")):
        texts[path] = notebook_page(path.read_text(encoding="utf-8"), path.name, ways)
    return texts


def _replace_once(pattern: str, new: str, text: str) -> str:
    text, found = re.subn(pattern, lambda _: new, text)
    if found != 1:
        raise ValueError(f"one place must be like {pattern}, found {found}")
    return text


if __name__ == "__main__":
    for path, text in pages(ROOT).items():
        path.write_text(text, encoding="utf-8")
