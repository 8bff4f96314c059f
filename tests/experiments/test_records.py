import resource
import subprocess
import sys

import pytest

from mpo_tutorial.experiments import records

FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from mpo_tutorial.experiments.records import write_record
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
write_record({"long": "x" * 5000}, Path(sys.argv[1]))
"""


def test_a_full_disk_leaves_the_earlier_record_whole(tmp_path):
    path = tmp_path / "record.json"
    records.write_record({"earlier": 1}, path)
    done = subprocess.run([sys.executable, "-c", FULL_DISK, path], capture_output=True, text=True, check=False)
    assert "OSError" in done.stderr
    assert records.read_record(path) == {"earlier": 1}
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_text() == '{\n "earlier": 1\n}\n'


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "record.json").write_text("{")
    with pytest.raises(ValueError, match=r"must be JSON, .*record.json is not"):
        records.read_record(tmp_path / "record.json")


def test_the_records_that_came_with_the_package_are_read():
    assert records.shipped("demo")["versions"].keys() >= {"python", "torch"}
    for name in ("compare", "cuts", "bench"):
        points = records.shipped_points(name)
        assert points
        assert all(point.keys() >= {"study", "stage", "setting", "result"} for point in points)


def test_peak_memory_is_at_least_what_is_held_and_no_parents():
    code = "from mpo_tutorial.experiments.records import peak_memory_bytes as p; a = p(); b = bytearray(10**8); print(a, p())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    before, after = map(int, done.stdout.split())
    assert 0.9e8 < after - before < 1.5e8
    assert records.peak_memory_bytes() <= 1.1 * 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
