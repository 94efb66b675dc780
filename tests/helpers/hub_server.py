"""A stand-in of the Hugging Face hub: the endpoints that uploading and loading a model call."""

import base64
import contextlib
import hashlib
import json
import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from file_server import serving

TOKEN, USER, ORGANIZATION = "hf_right", "somebody", "lab"
LARGE = (".safetensors", ".png")  # what the hub keeps in LFS


class Hub(ThreadingHTTPServer):
    """`repositories`: {name: {"private", "commits": [(commit, {file: bytes})]}}; `asked`: of requests."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories, self.large, self.asked = {}, {}, []
        self.token, self.read_only, self.down = TOKEN, False, False
        self.bad = None  # a file that arrives changed

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def elsewhere(self):
        """The same under another name, as large files lie on another host."""
        return f"http://localhost:{self.server_address[1]}"

    def commit(self, name, files, private=False):
        """Add files to a repository; -> the commit."""
        repository = self.repositories.setdefault(name, {"private": private, "commits": []})
        content = (repository["commits"][-1][1] if repository["commits"] else {}) | files
        commit = hashlib.sha1(repr(sorted(content.items())).encode()).hexdigest()
        repository["commits"].append((commit, content))
        return commit

    def files(self, name, revision="main"):
        """(commit, files) at a revision; None where there is none."""
        commits = self.repositories[name]["commits"]
        if revision == "main":
            return commits[-1] if commits else ("0" * 40, {})
        return next((each for each in commits if each[0] == revision), None)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self._begin()
        if self.server.down:
            return self._answer({}, 503)
        path = self.path.partition("?")[0]
        if path == "/api/whoami-v2":
            if self._token() != self.server.token:
                return self._answer({"error": "Invalid username or password."}, 401)
            return self._answer({"name": USER, "type": "user", "orgs": [{"name": ORGANIZATION}]})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
            return self._describe(found[1], found[2] or "main")
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self._resolve(*found.groups())
        if found := re.fullmatch(r"/cdn/(\w+)", path):
            return self._answer(self.server.large[found[1]])
        return self._answer({}, 404)

    def do_POST(self):
        body = self._begin()
        path = self.path.partition("?")[0]
        if path == "/api/validate-yaml":
            return self._answer({"errors": [], "warnings": []})
        if self._token() != self.server.token or self.server.read_only:
            return self._answer({"error": "Forbidden"}, 403 if self.server.read_only else 401)
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(body)["files"]
            ]
            return self._answer({"files": files})
        if re.fullmatch(r"/[^/]+/[^/]+\.git/info/lfs/objects/batch", path):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.address}/lfs/{each['oid']}"}}}
                for each in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            return self._commit(found[1], [json.loads(line) for line in body.splitlines()])
        return self._answer({}, 404)

    def do_PUT(self):
        body = self._begin()
        oid = self.path.rpartition("/")[2]
        assert hashlib.sha256(body).hexdigest() == oid
        self.server.large[oid] = body
        self._answer({})

    def _begin(self):
        self.server.asked.append((self.command, self.path, self._token()))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _token(self):
        return (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None

    def _readable(self, name):
        repository = self.server.repositories.get(name)
        return repository and (not repository["private"] or self._token() == self.server.token)

    def _describe(self, name, revision):
        if not self._readable(name):
            return self._answer({}, 401, {"X-Error-Code": "RepoNotFound"})
        found = self.server.files(name, revision)
        if found is None:
            return self._answer({}, 404, {"X-Error-Code": "RevisionNotFound"})
        siblings = [{"rfilename": file, **self._digests(file, content)} for file, content in found[1].items()]
        private = self.server.repositories[name]["private"]
        said = {"id": name, "modelId": name, "sha": found[0], "private": private, "siblings": siblings}
        return self._answer(said)

    def _digests(self, file, content):
        blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        if not file.endswith(LARGE):
            return {"size": len(content), "blobId": blob}
        sha256 = hashlib.sha256(content).hexdigest()
        lfs = {"sha256": sha256, "size": len(content), "pointerSize": 134}
        return {"size": len(content), "blobId": "0" * 40, "lfs": lfs}

    def _resolve(self, name, commit, file):
        if not self._readable(name):
            return self._answer({}, 401)
        content = self.server.files(name, commit)[1][file]
        if file == self.server.bad:
            content = content[:-1] + b"?"
        if not file.endswith(LARGE):
            return self._answer(content)
        key = hashlib.sha256(content).hexdigest()
        self.server.large[key] = content
        return self._answer(b"", 302, {"Location": f"{self.server.elsewhere}/cdn/{key}"})

    def _create(self, asked):
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        there = name in self.server.repositories
        private = asked.get("visibility") == "private" or bool(asked.get("private"))
        self.server.repositories.setdefault(name, {"private": private, "commits": []})
        said = {"url": f"{self.server.address}/{name}", "name": name, "id": name}
        return self._answer({**said, "error": "You already created this model repo"}, 409 if there else 200)

    def _commit(self, name, lines):
        files = {}
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
        commit = self.server.commit(name, files)
        url = f"{self.server.address}/{name}/commit/{commit}"
        return self._answer({"success": True, "commitOid": commit, "commitUrl": url})

    def _answer(self, said, status=200, headers=()):
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        kind = "application/octet-stream" if isinstance(said, bytes) else "application/json"
        for key, value in {"Content-Type": kind, **dict(headers)}.items():
            self.send_header(key, value)
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def serving_hub():
    return serving(Hub)
