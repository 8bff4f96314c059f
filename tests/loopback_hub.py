"""A hub on loopback that serves a folder of repositories as the Hugging Face hub serves them, to its real clients.

The folder holds `models/OWNER/NAME/...` and `datasets/OWNER/NAME/...` (a model's OWNER may be missing).
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".parquet", ".safetensors")  # the hub keeps these elsewhere and answers with a redirection

RESOLVE = re.compile(r"/(datasets/)?(?P<id>[^/]+(?:/[^/]+)?)/resolve/(?P<revision>[^/]+)/(?P<file>.+)")
API = re.compile(
    r"/api/(?P<kind>models|datasets)/(?P<id>[^/]+(?:/[^/]+)?)"
    r"(?:/(?P<what>revision|tree|paths-info)/(?P<revision>[^/]+)(?:/(?P<file>.+))?)?"
)


class Repository:
    """A folder, its files, and a commit that changes with them."""

    def __init__(self, folder: Path, kind: str, name: str):
        self.name = name
        self.folder = folder / kind / name
        self.files = {
            path.relative_to(self.folder).as_posix(): path for path in sorted(self.folder.rglob("*")) if path.is_file()
        }
        self.commit = _sha(json.dumps({name: _sha(path.read_bytes()) for name, path in self.files.items()}).encode())

    def info(self) -> dict:
        siblings = [{"rfilename": name} for name in self.files]
        return {"id": self.name, "sha": self.commit, "private": False, "tags": [], "downloads": 0, "siblings": siblings}

    def entries(self, under: str, deep: bool) -> list[dict]:
        """Files and folders in a folder, as the hub lists them."""
        folder = self.folder / under
        paths = sorted(folder.rglob("*") if deep else folder.glob("*"))
        return [self.entry(path.relative_to(self.folder).as_posix()) for path in paths]

    def entry(self, name: str) -> dict:
        path = self.folder / name
        if path.is_dir():
            return {"type": "directory", "path": name, "size": 0, "oid": _sha(name.encode())}
        return {"type": "file", "path": name, "size": path.stat().st_size, "oid": _sha(path.read_bytes())}


def _sha(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.asked.append(f"{self.command} {self.path}")
        url = urlsplit(self.path)
        path = unquote(url.path)
        if url.netloc:  # asked as a proxy, for an address outside
            self._refuse("EntryNotFound", "nothing outside is reached")
        elif path == "/":
            self._answer(b"", {})
        elif path.startswith("/elsewhere/"):
            self.server.flowing.wait()
            self._file(self.server.folder / path.removeprefix("/elsewhere/"), {})
        elif found := RESOLVE.fullmatch(path):
            self._resolve("datasets" if found[1] else "models", found)
        elif found := API.fullmatch(path):
            self._ask(found, parse_qs(url.query))
        else:
            self._refuse("EntryNotFound", "Entry not found")

    def do_POST(self):
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        found = API.fullmatch(unquote(urlsplit(self.path).path))
        if found and found["what"] == "paths-info":
            asked = json.loads(body) if body.startswith("{") else parse_qs(body)
            self._ask(found, asked)
        else:
            self._refuse("EntryNotFound", "Entry not found")

    def _repository(self, kind: str, found: re.Match) -> Repository | None:
        """The repository at the revision that was asked for; None after a refusal."""
        repository = Repository(self.server.folder, kind, found["id"])
        if not repository.files:
            self._refuse("RepoNotFound", "Repository not found")
        elif found["revision"] not in (None, "main", repository.commit):
            self._refuse("RevisionNotFound", f"Invalid rev id: {found['revision']}")
        else:
            return repository
        return None

    def _ask(self, found: re.Match, query: dict) -> None:
        repository = self._repository(found["kind"], found)
        if repository is None:
            return
        if found["what"] == "tree":
            under = found["file"] or ""
            if not (repository.folder / under).is_dir():
                self._refuse("EntryNotFound", f"{under} does not exist on main")
                return
            answer = repository.entries(under, query.get("recursive", ["false"])[0].lower() in ("1", "true"))
        elif found["what"] == "paths-info":
            answer = [repository.entry(name) for name in query["paths"] if (repository.folder / name).exists()]
        else:
            answer = repository.info()
        self._answer(json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _resolve(self, kind: str, found: re.Match) -> None:
        repository = self._repository(kind, found)
        if repository is None:
            return
        headers = {"X-Repo-Commit": repository.commit}
        path = repository.files.get(found["file"])
        if path is None:
            self._refuse("EntryNotFound", "Entry not found", headers)
        elif path.suffix in LARGE:
            headers["X-Linked-Etag"] = f'"{hashlib.sha256(path.read_bytes()).hexdigest()}"'
            headers["X-Linked-Size"] = str(path.stat().st_size)
            headers["Location"] = (
                f"http://localhost:{self.server.server_port}/elsewhere/{path.relative_to(self.server.folder).as_posix()}"
            )
            self._answer(b"", headers, status=302)
        else:
            self._file(path, headers)

    def _file(self, path: Path, headers: dict) -> None:
        content = path.read_bytes()
        self._answer(content, {"ETag": f'"{_sha(content)}"', **headers})

    def _refuse(self, code: str, message: str, headers: dict | None = None) -> None:
        body = json.dumps({"error": message}).encode()
        self._answer(body, {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}, status=404)

    def _answer(self, body: bytes, headers: dict, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *args):
        return


class LoopbackHub(ThreadingHTTPServer):
    """The server.

    `asked` has each request so far, as "GET /path". While `flowing` is cleared, large files keep their reader waiting.
    """

    daemon_threads = True

    def __init__(self, folder: Path):
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.asked: list[str] = []
        self.flowing = threading.Event()
        self.flowing.set()
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def environment(self, home: Path) -> dict[str, str]:
        """Variables for a process that is to use this hub, with its caches in `home`; they are read at its imports.

        Whatever else it asks for, by HTTP, comes here too, as to a proxy, and is refused.
        """
        here = "127.0.0.1,localhost"
        outside = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), self.endpoint)
        return {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), **outside, "NO_PROXY": here, "no_proxy": here}


@contextmanager
def serving(folder: Path):
    """A hub that serves a folder while the block runs."""
    hub = LoopbackHub(folder)
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
