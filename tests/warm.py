"""Processes that have their imports behind them: of a quarter of a minute, a second or a few are left.

`run` is the command, from a process that has imported all of it. `python` and `Started` are the interpreter, as `python -c` and
`python -m` start it, from a process that has imported other people's large modules alone, none of which reads the environment:
what is ours, transformers and the hub's clients are imported anew, in the environment that is given.
"""

import atexit
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from unittest.mock import patch

IMPORTS = (
    "mpo_tutorial.cli",
    "mpo_tutorial.experiments.training",
    "mpo_tutorial.course.figures",
    "mpo_tutorial.models.peft",
    "transformers.models.bert.modeling_bert",
)
context = get_context("forkserver")
context.set_forkserver_preload([*IMPORTS])


def run(arguments: list[str], cwd: Path, preexec_fn: Callable[[], object] | None = None) -> subprocess.CompletedProcess:
    """What `mpo-tutorial` with some arguments prints in a folder, and how it ends."""
    with TemporaryDirectory() as folder:
        printed = [Path(folder) / name for name in ("out", "err")]
        given = arguments, str(cwd), *map(str, printed), dict(os.environ), preexec_fn
        process = context.Process(target=_main, args=given)
        process.start()
        process.join()
        texts = (path.read_text(encoding="utf-8") for path in printed)
        return subprocess.CompletedProcess(arguments, process.exitcode, *texts)


def _main(
    arguments: list[str],
    cwd: str,
    out: str,
    err: str,
    environment: dict[str, str],
    preexec_fn: Callable[[], object] | None,
) -> None:
    for descriptor, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    if preexec_fn is not None:
        preexec_fn()
    sys.argv = ["mpo-tutorial", *arguments]
    from mpo_tutorial.cli import main

    main()


# Each line that it reads asks for a process, which is forked. Its number and how it ends are written into files.
SERVER = """
import atexit, json, os, runpy, select, sys, threading, types
import pandas, scipy.optimize, scipy.stats, sklearn.metrics, torch, torch._dynamo, torch.distributed.tensor

given = list(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
own = [place for place in sys.path if place and place not in given]

def tell(folder, name, number):
    path = f"{folder}/{name}"
    with open(path + "-partial", "w") as file:
        file.write(str(number))
    os.rename(path + "-partial", path)

def asked():
    folders, rest = {}, b""
    while True:
        for child in [*folders]:
            found, status = os.waitpid(child, os.WNOHANG)
            if found:
                tell(folders.pop(child), "status", os.waitstatus_to_exitcode(status))
        if not select.select([0], [], [], 0.02)[0]:
            continue
        read = os.read(0, 65536)
        if not read:
            os._exit(0)
        *lines, rest = (rest + read).split(b"\\n")
        for line in lines:
            task = json.loads(line)
            child = os.fork()
            if not child:
                os.setsid()
                tell(task["folder"], "pid", os.getpid())  # not before it leads a group of its own, which a kernel's end kills
                return task
            folders[child] = task["folder"]

task = asked()
for descriptor, path in enumerate(task["files"]):
    os.dup2(os.open(path, os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
os.environ.clear()
os.environ.update(task["env"])
os.chdir(task["cwd"])
places = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
sys.path[:] = ["", *places, *(place for place in own if place)]
how, what, *rest = task["words"]
status = 0
try:
    if how == "-m":
        sys.argv = [what, *rest]
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv = ["-c", *rest]
        sys.modules["__main__"] = main = types.ModuleType("__main__")
        exec(compile(what, "<string>", "exec"), main.__dict__)
except SystemExit as end:
    status = end.code or 0
    if not isinstance(status, int):
        print(status, file=sys.stderr)
        status = 1
except BaseException:
    sys.excepthook(*sys.exc_info())
    status = 1
threading._shutdown()
atexit._run_exitfuncs()
sys.stdout.flush()
sys.stderr.flush()
os._exit(status)  # to take apart all that was imported would last two seconds
"""
COMMAND = "import sys; sys.argv[0] = 'mpo-tutorial'; from mpo_tutorial.cli import main; main()"
_server: subprocess.Popen | None = None
_folder = Path(gettempdir()) / f"warm-{os.getpid()}-{time.time_ns()}"


def _ask(**task) -> None:
    global _server
    if _server is None:
        _server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, text=True, start_new_session=True
        )
        atexit.register(shutil.rmtree, _folder, ignore_errors=True)
        atexit.register(_end)
    _server.stdin.write(json.dumps(task) + "\n")
    _server.stdin.flush()


def _end() -> None:
    _server.stdin.close()
    _server.wait()


class Started:
    """A process, of which one can ask what one asks of a `subprocess.Popen`.

    Parameters
    ----------
    words : sequence of str
        What would follow `python`: -c and code, or -m and a module, and arguments.
    """

    stdin = stdout = stderr = None

    def __init__(self, words: Sequence[object], env: Mapping[str, str] | None = None, cwd: Path | str | None = None):
        self.folder = _folder / str(time.time_ns())
        self.folder.mkdir(parents=True, mode=0o700)
        self.files = [os.devnull, *(str(self.folder / name) for name in ("out", "err"))]
        environment = {name: str(value) for name, value in (os.environ if env is None else env).items()}
        where = str(Path.cwd() if cwd is None else cwd)
        _ask(words=[*map(str, words)], env=environment, cwd=where, folder=str(self.folder), files=self.files)
        while (pid := self._told("pid")) is None:
            assert _server.poll() is None
            time.sleep(0.01)
        self.pid = pid

    def _told(self, name: str) -> int | None:
        path = self.folder / name
        return int(path.read_text()) if path.exists() else None

    def poll(self) -> int | None:
        return self._told("status")

    def wait(self, timeout: float | None = None) -> int:
        begun = time.monotonic()
        while (status := self.poll()) is None:
            if timeout is not None and time.monotonic() - begun > timeout:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.02)
        return status

    def printed(self) -> tuple[str, str]:
        return tuple(Path(path).read_text(encoding="utf-8") if Path(path).exists() else "" for path in self.files[1:])

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def python(
    *words: object, env: Mapping[str, str] | None = None, cwd: Path | str | None = None
) -> subprocess.CompletedProcess:
    """What `python` with some words prints, and how it ends."""
    process = Started(words, env, cwd)
    status = process.wait()
    return subprocess.CompletedProcess(words, status, *process.printed())


@contextmanager
def kernels():
    """Kernels that are begun meanwhile are such processes."""

    def launch(command: Sequence[str], **options) -> Started:
        return Started(command[1:], options.get("env"), options.get("cwd"))

    with patch("jupyter_client.provisioning.local_provisioner.launch_kernel", launch):
        yield
