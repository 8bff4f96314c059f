"""Turn the records of before there were studies into points: run once, on the files of commit 0495471.

python docs/convert_records.py FOLDER_WITH_THE_OLD_RECORDS
"""

import json
import sys
from itertools import groupby
from pathlib import Path

RECORDS = Path(__file__).parents[1] / "mpo_tutorial" / "records"
old = Path(sys.argv[1])


def read(name: str) -> dict:
    return json.loads((old / f"{name}.json").read_text())


def point(study: str, stage: str, made: dict, command: str, setting: dict, result: dict, seconds: float | None) -> dict:
    head = {"study": study, "version": 1, "command": command, "stage": stage, "setting": setting, "result": result}
    provenance = {name: made[name] for name in ("date", "versions", "hardware")}
    return {**head, "seconds": seconds, "peak_memory_bytes": None, **provenance}


def write(name: str, points: list[dict]) -> None:
    lines = "".join(json.dumps(point) + "\n" for point in points)
    (RECORDS / f"{name}.jsonl").write_text(lines)


for name in ("compare", "compare-3-epochs"):
    record, points = read(name), []
    runs = [("tuning", run) for run in record["grid"]] + [
        ("final", run) for of in record["final"].values() for run in of
    ]
    for stage, run in runs:
        result = {
            key: run[key]
            for key in ("parameters", "stored_bytes", "train_sentences", "validation", "test", "seconds")
            if key in run
        }
        result["process_peak_bytes"] = run[
            "peak_memory_bytes"
        ]  # of the process that made all runs, so not the run's own
        setting = {
            "config": {"matrices": None, **run["config"]},
            "splits": [s for s in ("validation", "test") if s in run],
        }
        points.append(point("compare", stage, run, record["command"], setting, result, sum(run["seconds"].values())))
    write(name, points)

tradeoff, truncate = read("tradeoff"), read("truncate")
configs = {config["seed"]: config for config in truncate["configs"]}
parts = dict.fromkeys(p["part"] for p in truncate["points"] if p["part"].startswith("layer "))
points = []
for p in truncate["points"]:
    if p["way"] == "uncut":
        setting = {"seed": p["seed"], "config": configs[p["seed"]], "sentences": truncate["n_sentences"]}
        result = {
            "dense": tradeoff["dense"],
            "largest_bond": max(q["max_bond"] for q in tradeoff["points"]),
            "layers": [part.replace(" ", ".") for part in parts],
            "chance": {"validation": tradeoff["chance"], "unused": truncate["chance"]},
            "accuracy": p["accuracy"],
            "states": p["states"],
        }
        points.append(point("cuts", "uncut", truncate, truncate["command"], setting, result, None))
for p in tradeoff["points"]:
    setting = {"seed": tradeoff["config"]["seed"], "cut": {"max_bond": p["max_bond"], "matrices": p["part"]}}
    result = {key: value for key, value in p.items() if key not in ("part", "max_bond")}
    points.append(point("cuts", "bonds", tradeoff, tradeoff["command"], setting, result, None))
for p in truncate["points"]:
    if p["way"] != "uncut":
        matrices = f"*.{p['part'].replace(' ', '.')}.*" if p["part"] in parts else p["part"]
        setting = {"seed": p["seed"], "way": p["way"], "cut": {"ratio": p["ratio"], "matrices": matrices}}
        result = {key: p[key] for key in ("parameters", "dense", "accuracy", "states")}
        points.append(point("cuts", "ratios", truncate, truncate["command"], setting, result, None))
write("cuts", points)

legwise, points = read("legwise"), []
for (seed, ratio, way), group in groupby(
    sorted(legwise["points"], key=lambda p: (p["seed"], -p["ratio"], ["plain", "legwise", "fitted"].index(p["way"]))),
    lambda p: (p["seed"], p["ratio"], p["way"]),
):
    setting, result = {"seed": seed, "ratio": ratio, "way": way}, {"errors": {p["matrix"]: p["error"] for p in group}}
    points.append(point("legwise", "cuts", legwise, legwise["command"], setting, result, None))
write("legwise", points)

bench, points = read("bench"), []
sizes = {"hidden": 768, "feed_forward": 3072, "vocabulary": 30522, "layers": 12, "tokens": [1024, 4096]}
sizes |= {"model_tokens": [256, 1024], "bonds": [None, 64]}
common = {"device": bench["device"], "repeat": bench["repeat"], "sizes": sizes}


def add(setting: dict, rows: list[dict]) -> None:
    rows = [{k: v for k, v in row.items() if k not in ("tokens", "bond")} for row in rows]
    result = {"peers": bench["peers"], "rows": [row for row in rows if row.get("contender") != "counted limit"]}
    points.append(point("bench", "parts", bench, bench["command"], {**setting, **common}, result, None))


add({"part": "decomposition"}, bench["decomposition"])
for part in ("layer", "evaluation", "model"):
    for where in dict.fromkeys((row.get("bond", "none"), row["tokens"]) for row in bench[part]):
        rows = [row for row in bench[part] if (row.get("bond", "none"), row["tokens"]) == where]
        setting = {"bond": where[0], "tokens": where[1]} if part != "evaluation" else {"tokens": where[1]}
        add({"part": part, **setting}, rows)
add({"part": "slider"}, [bench["slider"]])
write("bench", points)

demo = read("demo")
kept = {name: value for name, value in demo.items() if name not in ("table", "baseline")}  # they follow from the rest
(RECORDS / "demo.json").write_text(json.dumps(kept, indent=1) + "\n")
