"""What holds the project together: imports, requirements, environments, README, notebooks' form."""

import ast
import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from chapters import markdown
from packaging.requirements import Requirement
from packaging.version import Version

import blocks
import make_badges
import make_readme
import outer_links
from mpo_tutorial.course import bench_tables, tables
from mpo_tutorial.experiments import bench, records
from mpo_tutorial.experiments.light import LIGHT
from mpo_tutorial.models.sources import INSTALL_OFFLINE

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROOMS = (
    "maths",
    "models",
    "experiments",
    "course",
    "front door",
)  # each may import from itself and from those before it
PACKAGE = ROOT / "mpo_tutorial"


def module_of(path: Path) -> str:
    """ "models.layers" of mpo_tutorial/models/layers.py; the name of its folder for an __init__."""
    *folders, name = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join([*folders, name] if name != "__init__" else folders)


MODULES = {module_of(path): path for path in PACKAGE.rglob("*.py")}


def room_of(module: str) -> str:
    room = module.partition(".")[0]
    return room if room in ROOMS else "front door"


def imports_of(path: Path) -> set[str]:
    """Our own modules that a file imports, at its top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "mpo_tutorial":
            home = node.module.removeprefix("mpo_tutorial").removeprefix(".")
            for alias in node.names:
                deeper = f"{home}.{alias.name}".removeprefix(".")
                found.add(deeper if deeper in MODULES else home)
        elif isinstance(node, ast.Import):
            found |= {
                name.removeprefix("mpo_tutorial.") for name in (alias.name for alias in node.names) if "mpo_tut" in name
            }
    return found - {""}


IMPORTS = {module: imports_of(path) for module, path in MODULES.items() if module}


def test_a_room_imports_from_itself_and_from_those_before_it():
    assert {room_of(module) for module in MODULES} == set(ROOMS)
    for module, imported in IMPORTS.items():
        allowed = ROOMS[: ROOMS.index(room_of(module)) + 1]
        assert {room_of(other) for other in imported} <= set(allowed), f"{module} imports {imported}"


def test_inside_a_room_nothing_runs_in_circles():
    left = {module: imported - {module} for module, imported in IMPORTS.items()}
    while left:
        free = {module for module, imported in left.items() if not imported & left.keys()}
        assert free, f"these import each other: {sorted(left)}"
        left = {module: imported for module, imported in left.items() if module not in free}


def test_the_table_of_rooms_names_every_module():
    page = (ROOT / "CONTRIBUTING.md").read_text()
    table = dict(re.findall(r"^\| `(\w+)/` \| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE))
    assert tuple(table) == ROOMS[:-1]
    for room, cell in table.items():
        there = {module.split(".")[1] for module in MODULES if module.startswith(f"{room}.")}
        assert set(re.findall(r"`(\w+)`", cell)) == there, room


def test_importing_the_package_is_light():
    code = "import sys, mpo_tutorial; mpo_tutorial.MPO; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert "mpo_tutorial.maths.mpo" in loaded
    assert not {"transformers", "matplotlib", "ipywidgets", "datasets", "pandas"} & set(loaded)


def test_package_names_are_there_and_others_are_named():
    import mpo_tutorial

    for name in mpo_tutorial.__all__:
        assert hasattr(mpo_tutorial, name)
    assert set(mpo_tutorial.__all__) <= set(dir(mpo_tutorial))
    with pytest.raises(AttributeError, match=r"it has .*MPO, MPOConv2d, MPOEmbedding, MPOLinear"):
        _ = mpo_tutorial.MP0


def test_type_checkers_see_the_names_that_are_there():
    import mpo_tutorial

    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    seen = {f"{node.module}.{alias.name}" for node in block.body for alias in node.names}
    assert seen == {f"mpo_tutorial.{home}.{name}" for name, home in mpo_tutorial._HOMES.items()}


@pytest.mark.parametrize("action", [["check"], ["format", "--check"]])
def test_ruff_is_content_with_code_and_notebooks(action):
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *action, "."], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def requirements(lines: list[str]) -> dict[str, Requirement]:
    parsed = {line: Requirement(line) for line in lines}  # raises at anything that PEP 508 does not know
    return {requirement.name.lower().replace("_", "-"): requirement for requirement in parsed.values()}


def test_constraints_fit_the_requirements():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = {name: next(iter(requirement.specifier)) for name, requirement in requirements(lines).items()}
    assert all(pin.operator == "==" for pin in pins.values())
    assert pins["torch"].version == "2.13.0"
    wanted = requirements([*PROJECT["dependencies"], *chain(*PROJECT["optional-dependencies"].values())])
    assert wanted.keys() <= pins.keys()
    for name, requirement in wanted.items():
        assert requirement.specifier.contains(pins[name].version), name


def test_lower_bounds_admit_colab():
    colab = {"torch": "2.11", "transformers": "5.15", "datasets": "4.0", "numpy": "2.1", "matplotlib": "3.10"}
    wanted = requirements(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"])
    for name, version in {**colab, "ipywidgets": "7.7.1"}.items():
        assert wanted[name].specifier.contains(version), name
    assert Version("3.12") in Requirement(f"python{PROJECT['requires-python']}").specifier


def test_conda_environment_has_what_the_package_needs():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *conda, pip = environment["dependencies"]
    for line in conda:
        assert re.fullmatch(r"[a-z0-9-]+((=|>=)\d+(\.\d+)*)?", line), line
    aliases = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}
    given = requirements([re.sub(r"(?<![>=])=(?!=)", "==", line) for line in conda] + pip["pip"])
    given = {aliases.get(name, name): requirement for name, requirement in given.items()}
    extras = PROJECT["optional-dependencies"]
    wanted = requirements(PROJECT["dependencies"] + extras["lab"] + extras["offline"])
    assert wanted.keys() == given.keys() - {"python", "pip"}
    for name, requirement in wanted.items():
        assert given[name].specifier == requirement.specifier, name


def test_binder_has_the_same_environment_and_a_post_build_that_fails_loudly():
    assert (ROOT / "binder/environment.yml").read_text() == (ROOT / "environment.yml").read_text()
    post_build = ROOT / "binder/postBuild"
    lines = post_build.read_text().splitlines()
    assert lines[0].startswith("#!")
    assert "set -e" in lines
    assert post_build.stat().st_mode & 0o111


def test_repo2docker_takes_the_binder_folder():
    """It writes the Dockerfile, without building it: an unknown Python or a broken file stops it here."""
    command = [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    dockerfile = done.stdout + done.stderr
    assert "binder/environment.yml" in dockerfile
    assert "./binder/postBuild" in dockerfile


def test_what_the_errors_tell_to_install_is_the_extra():
    assert INSTALL_OFFLINE.split()[2:] == PROJECT["optional-dependencies"]["offline"]


def test_citation_file_is_valid_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == PROJECT["version"]


def test_readme_shows_the_record():
    readme = (ROOT / "README.md").read_text()
    assert tables.markdown_of_comparison(records.shipped_points(LIGHT.name), LIGHT, make_readme.SHOWN) in readme


def test_ways_in_are_those_of_pyproject():
    for path, text in make_badges.pages(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: type make badges"
    assert make_badges.WaysIn.read(ROOT).tag == f"v{PROJECT['version']}"


def test_colab_installs_what_it_lacks_and_nothing_else():
    colab_has = requirements(PROJECT["dependencies"] + PROJECT["optional-dependencies"]["lab"]).keys() - {"tensorly"}
    command = shlex.split(make_badges.WaysIn.read(ROOT).install_on_colab().replace("\\\n", " "))
    assert command[:4] == ["%pip", "install", "-q", "--no-deps"]
    package, *others = command[4:]
    assert package == f"git+{PROJECT['urls']['Repository']}@v{PROJECT['version']}"
    assert not requirements(others).keys() & {*colab_has, "numpy", "torch", "ipywidgets"}
    offline = PROJECT["optional-dependencies"]["offline"]
    assert requirements(others).keys() == {"tensorly", *requirements(offline)}
    assert set(others) <= {*PROJECT["dependencies"], *offline}


def test_another_address_reaches_every_place(tmp_path):
    for name in ("docs", "notebooks"):
        shutil.copytree(ROOT / name, tmp_path / name)
    for name in ("README.md", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    old, new = PROJECT["urls"]["Repository"], "https://github.com/somebody/their-course"
    tag = make_badges.WaysIn.read(ROOT).tag
    pyproject = tmp_path / "pyproject.toml"
    pyproject.write_text(pyproject.read_text().replace(old, new).replace(f'tag = "{tag}"', 'tag = "2027-spring"'))
    states = []
    for _ in range(2):
        subprocess.run([sys.executable, tmp_path / "docs/make_badges.py"], check=True)
        states.append({path.name: path.read_bytes() for path in make_badges.pages(tmp_path)})
    assert states[0] == states[1]
    written = [page.decode() for page in states[0].values()]
    assert all(new in page and "2027-spring" in page for page in written)
    traces = old.removeprefix("https://github.com/"), f"/{tag}", f"@{tag}"
    assert not any(trace in page for page in written for trace in traces)


def test_an_address_that_colab_cannot_open_is_refused(tmp_path):
    text = (ROOT / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace("https://github.com/", "https://example.org/"))
    with pytest.raises(ValueError, match=r"as Colab takes it, got 'https://example\.org"):
        make_badges.WaysIn.read(tmp_path)


def test_blocks_are_replaced_once_or_not_at_all():
    page = "before\n<!-- a -->\nold \\1\n<!-- end of a -->\nafter <!-- b --><!-- end of b -->"
    new = "before\n<!-- a -->\nnew \\1\n<!-- end of a -->\nafter <!-- b --><!-- end of b -->"
    assert blocks.replace_block(page, "a", "new \\1") == new
    for broken in (page * 2, "nothing", "<!-- a --> without an end"):
        with pytest.raises(ValueError, match="one block from <!-- a --> to <!-- end of a -->"):
            blocks.replace_block(broken, "a", "new")


def test_the_badges_are_pictures_with_titles():
    for name in ("Colab", "Binder"):
        picture = (ROOT / f"docs/badges/{name.lower()}.svg").read_text()
        assert f">Open in {name}</title>" in picture


def test_the_benchmarks_page_shows_the_record():
    page = (ROOT / "benchmarks/README.md").read_text()
    assert bench_tables.markdown(bench.summarise(records.shipped_points("bench"))) in page


def test_readme_reads_in_three_minutes():
    prose = re.sub(r"```.*?```|<!--.*?-->|!\[.*?\]\(.*?\)", "", (ROOT / "README.md").read_text(), flags=re.S)
    assert len(prose.split()) < 3 * 300


def test_every_link_that_leads_out_is_listed_for_the_first_person_with_a_network():
    page = (ROOT / "docs" / "online.md").read_text(encoding="utf-8")
    assert blocks.block_of(page, "links") == outer_links.as_list()
    assert len(outer_links.outer_links()) >= 30
    assert outer_links.outer_links()["https://arxiv.org/abs/2106.02205"][:2] == ["README.md", "00"]
    assert any("(75)" in address for address in outer_links.outer_links())  # a bracket inside an address


def test_links_and_pictures_of_the_texts_exist():
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks/README.md", *NOTEBOOKS]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", markdown(page)):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_bare_and_short(path):
    notebook = json.loads(path.read_text())
    assert "widgets" not in notebook["metadata"]
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in code)
    lengths = [len("".join(cell["source"]).splitlines()) for cell in code]
    assert max(lengths) <= 15
    assert sum(lengths) <= 200


def test_the_hooks_empty_a_notebook_and_leave_an_empty_one(tmp_path):
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    (hook,) = [hook for hook in hooks if hook["id"] == "empty-notebooks"]
    program, script = hook["entry"].split()
    assert (program, {h["entry"].split()[0] for h in hooks[:2]}) == (".venv/bin/python", {".venv/bin/ruff"})
    path, bare = tmp_path / "chapter.ipynb", NOTEBOOKS[0].read_text()
    command = [sys.executable, ROOT / script, path]
    path.write_text(bare)
    assert subprocess.run(command, check=False).returncode == 0
    assert path.read_text() == bare
    notebook = json.loads(bare)
    notebook["metadata"]["widgets"] = {"state": {}}
    code = next(cell for cell in notebook["cells"] if cell["cell_type"] == "code")
    code["execution_count"], code["outputs"] = 3, [{"output_type": "stream", "name": "stdout", "text": ["x"]}]
    path.write_text(json.dumps(notebook))
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    assert path.read_text() == bare


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_open_with_what_a_reader_asks_first(path):
    opening, setup, *_ = json.loads(path.read_text())["cells"]
    text = "".join(opening["source"])
    assert text.startswith("# ")
    assert "<!-- badges -->" in text
    for promise in ("After this chapter you can", "Before you start:", "Time:"):
        assert re.search(rf"^\*\*{promise}\*\* \S+", text, re.MULTILINE), promise
    assert "mt.set_up(SEED" in "".join(setup["source"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_have_a_widget_its_figure_below_and_three_to_six_exercises(path):
    code = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
    widgets = [k for k, cell in enumerate(code) if "widget" in cell["metadata"].get("tags", [])]
    assert widgets
    assert any("plots.show(" in "".join(cell["source"]) for cell in code[widgets[-1] + 1 :])
    checks = re.findall(r"^ex\.check\((\d)", "\n".join("".join(cell["source"]) for cell in code), re.MULTILINE)
    assert [int(number) for number in checks] == list(range(1, len(checks) + 1))
    assert 3 <= len(checks) <= 6
