"""A stand-in for the model hub on loopback: the few calls that huggingface_hub makes, with a log and with faults."""

import hashlib
import json
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Repository:
    """One model: files by commit, and names of commits; the last commit is the newest."""

    commits: dict[str, Mapping[str, bytes]]
    refs: dict[str, str]
    gated: bool = False


@dataclass
class Fetch:
    """One answered GET of a file."""

    path: str
    range_start: int
    byte_count: int


@dataclass
class HubStandIn:
    """Serves repositories; use it as a context manager."""

    repositories: dict[str, Repository] = field(default_factory=dict)
    fetches: list[Fetch] = field(default_factory=list)
    api_calls: list[str] = field(default_factory=list)
    # File name -> bytes to send before the connection is cut, each used once.
    cuts: dict[str, list[int]] = field(default_factory=dict)
    # Bytes that replace a file's own, of the same length.
    damaged: dict[str, bytes] = field(default_factory=dict)
    status: int = 0

    def __enter__(self) -> "HubStandIn":
        stand_in = self

        class Handler(_Handler):
            hub = stand_in

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def bytes_of(self, name: str) -> int:
        """Bytes sent of a file, over all requests."""
        return sum(fetch.byte_count for fetch in self.fetches if fetch.path == name)


class _Handler(BaseHTTPRequestHandler):
    hub: HubStandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if self.hub.status:
            self._answer(self.hub.status, b"{}")
        elif match := re.fullmatch(r"/api/models/(.+?)(?:/(revision|tree|commits)/([^/]+))?", path):
            self.hub.api_calls.append(path)
            self._api(match[1], match[2] or "revision", match[3] or "main")
        elif match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            self._file(match[1], match[2], match[3])
        else:
            self._answer(404, b"{}")

    def _find(self, model_id: str, revision: str) -> tuple[Repository, str] | None:
        repository = self.hub.repositories.get(model_id)
        if repository is None:
            return self._answer(401, b"{}", {"X-Error-Message": "Invalid username or password."})
        if repository.gated:
            return self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        commit = repository.refs.get(revision, revision)
        if commit not in repository.commits:
            return self._answer(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        return repository, commit

    def _api(self, model_id: str, what: str, revision: str) -> None:
        found = self._find(model_id, revision)
        if found is None:
            return
        repository, commit = found
        files = repository.commits[commit]
        if what == "revision":
            answer: object = {"id": model_id, "sha": commit, "siblings": [{"rfilename": name} for name in files]}
        elif what == "tree":
            answer = [_entry(name, content) for name, content in files.items()]
        else:
            day = "2026-01-01T00:00:00.000Z"
            answer = [{"id": c, "title": "", "message": "", "date": day, "authors": []} for c in repository.commits]
        self._answer(200, json.dumps(answer).encode())

    def _file(self, model_id: str, revision: str, name: str) -> None:
        found = self._find(model_id, revision)
        if found is None:
            return
        repository, commit = found
        content = repository.commits[commit].get(name)
        if content is None:
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_etag(name, content)}"', "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(wanted[1]) if wanted else 0
        if wanted:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        body = self.hub.damaged.get(name, content)[start:]
        cuts = self.hub.cuts.get(name, [])
        cut = cuts.pop(0) if cuts and self.command == "GET" else None
        sent = len(body) if cut is None else min(cut, len(body))
        if self.command == "GET":
            self.hub.fetches.append(Fetch(name, start, sent))
        self._answer(206 if wanted else 200, body, headers, cut)

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body if cut is None else body[:cut])
        if cut is not None:
            self.wfile.flush()
            self.close_connection = True


def _is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin"))


def _etag(name: str, content: bytes) -> str:
    if _is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _entry(name: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
    if _is_large(name):
        return entry | {"lfs": {"oid": _etag(name, content), "size": len(content), "pointerSize": 134}}
    return entry | {"oid": _etag(name, content)}
