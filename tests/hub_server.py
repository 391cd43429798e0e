"""A small Hugging Face Hub on this machine: the routes that huggingface_hub uses to push and to download a model."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import yaml

TOKEN = "hf_of_a_test"
ERRORS = {"RepoNotFound": 404, "RevisionNotFound": 404, "EntryNotFound": 404, "GatedRepo": 403}


class Repository:
    """Files by commit; the last commit is the head of `main`."""

    def __init__(self, private, gated=False):
        self.private, self.gated = private, gated
        self.commits = {}
        self.commit({"README.md": b"", ".gitattributes": b"*.safetensors filter=lfs"})

    @property
    def head(self):
        return list(self.commits)[-1]

    def commit(self, files):
        before = self.commits[self.head] if self.commits else {}
        oid = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[oid] = {**before, **files}
        return oid

    def resolve(self, revision):
        return self.head if revision == "main" else revision if revision in self.commits else None


class Hub(ThreadingHTTPServer):
    """The server. `large` says which files are kept as LFS does; `requests` are the methods and paths that came."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.objects, self.requests = {}, {}, []
        self.large = (".safetensors", ".png")
        self.status = None  # a number: the answer to whatever is asked
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = f"http://localhost:{self.server_port}"  # another host, as where the Hub keeps large files
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """A client that hangs up is no fault of the server."""


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def answer(self, status, content=b"", **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        headers = {"Content-Length": str(len(body)), **{name.replace("_", "-"): text for name, text in headers.items()}}
        for name, text in headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def fail(self, code):
        self.answer(ERRORS[code], {"error": code}, X_Error_Code=code, X_Error_Message=code)

    def do_GET(self):
        self.route()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def route(self):
        path = unquote(self.path.partition("?")[0])
        self.server.requests.append(f"{self.command} {path}")
        self.body = self.rfile.read(int(self.headers["Content-Length"])) if "Content-Length" in self.headers else b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.chunk, b""))
        if self.server.status:
            return self.answer(self.server.status, b"<html>")
        self.signed_in = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        for method, pattern, action in ROUTES:
            if self.command in method and (found := re.fullmatch(pattern, path)):
                return action(self, **found.groupdict())
        return self.answer(404, {"error": f"no route {self.command} {path}"})

    def chunk(self):
        content = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return content

    def repository(self, name, writes=False):
        """The repository, or None after an answer that says why not."""
        found = self.server.repositories.get(name)
        if found is None or (found.private and not self.signed_in):
            self.fail("RepoNotFound")
        elif writes and not self.signed_in:
            self.answer(401, {"error": "Invalid username or password."})
        elif found.gated and not writes and "resolve" in self.path:
            self.fail("GatedRepo")
        else:
            return found
        return None

    def create(self):
        if not self.signed_in:
            return self.answer(401, {"error": "Invalid username or password."})
        wanted = json.loads(self.body)
        name = f"{wanted['organization']}/{wanted['name']}"
        if wanted["organization"] == "others":
            return self.answer(403, {"error": "You don't have the rights to create a model under this namespace"})
        if name in self.server.repositories:
            return self.answer(409, {"error": "You already created this model repo"})
        private = wanted.get("private", wanted.get("visibility") == "private")
        self.server.repositories[name] = Repository(private)
        return self.answer(200, {"url": f"{self.server.endpoint}/{name}", "name": name, "id": "0"})

    def info(self, name):
        if found := self.repository(name):
            self.answer(200, {"id": name, "sha": found.head, "private": found.private, "siblings": [], "tags": []})

    def validate(self):
        front = yaml.safe_load(json.loads(self.body)["content"].split("---\n")[1])
        good = front.get("language") != "klingon" and front["model-index"][0]["results"][0]["task"]["type"]
        problems = [] if good else [{"message": '"language" must be an ISO code'}]
        self.answer(200 if good else 400, {"errors": problems, "warnings": []})

    def preupload(self, name, revision):
        if (found := self.repository(name, writes=True)) is None:
            return
        there = found.commits[found.head]
        answers = []
        for path in (file["path"] for file in json.loads(self.body)["files"]):
            large = path.endswith(self.server.large)
            oid = self.oid(there[path], large) if path in there else None
            mode = "lfs" if large else "regular"
            answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.answer(200, {"files": answers, "commitOid": found.head})

    @staticmethod
    def oid(content, large):
        if large:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def batch(self, name):
        if self.repository(name, writes=True) is None:
            return
        objects = json.loads(self.body)["objects"]
        for one in objects:
            upload = {"href": f"{self.server.endpoint}/lfs/{one['oid']}"}
            one["actions"] = {"upload": upload, "verify": {"href": f"{self.server.endpoint}/lfs/verify"}}
        self.answer(200, {"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json")

    def store(self, oid):
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self.answer(400)
        self.server.objects[oid] = self.body
        return self.answer(200)

    def verify(self):
        self.answer(200 if json.loads(self.body)["oid"] in self.server.objects else 404)

    def commit(self, name, revision):
        if (found := self.repository(name, writes=True)) is None:
            return
        files = {}
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        oid = found.commit(files)
        self.answer(
            200, {"success": True, "commitOid": oid, "commitUrl": f"{self.server.endpoint}/{name}/commit/{oid}"}
        )

    def resolve(self, name, revision, file):
        if (found := self.repository(name)) is None:
            return None
        commit = found.resolve(revision)
        if commit is None:
            return self.fail("RevisionNotFound")
        if file not in found.commits[commit]:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content, large = found.commits[commit][file], file.endswith(self.server.large)
        etag = f'"{self.oid(content, large)}"'
        if not large:
            return self.answer(200, content, ETag=etag, X_Repo_Commit=commit)
        oid = self.oid(content, large)
        self.server.objects.setdefault(oid, content)
        linked = {"X_Linked_Etag": etag, "X_Linked_Size": str(len(content)), "X_Repo_Commit": commit}
        return self.answer(302, Location=f"{self.server.elsewhere}/cdn/{oid}", **linked)

    def cdn(self, oid):
        if self.headers.get("Authorization"):
            return self.answer(400, {"error": "this host must not see the token"})
        return self.answer(200, self.server.objects[oid], ETag='"another"')


NAME = r"(?P<name>[^/]+/[^/]+)"
ROUTES = (
    ("POST", "/api/repos/create", _Handler.create),
    ("POST", "/api/validate-yaml", _Handler.validate),
    ("GET", f"/api/models/{NAME}", _Handler.info),
    ("GET", rf"/api/models/{NAME}/revision/.*", _Handler.info),
    ("POST", rf"/api/models/{NAME}/preupload/(?P<revision>.*)", _Handler.preupload),
    ("POST", rf"/api/models/{NAME}/commit/(?P<revision>.*)", _Handler.commit),
    ("POST", rf"/{NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", _Handler.store),
    ("POST", "/lfs/verify", _Handler.verify),
    ("GET HEAD", "/cdn/(?P<oid>[0-9a-f]{64})", _Handler.cdn),
    ("GET HEAD", rf"/{NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.*)", _Handler.resolve),
)
