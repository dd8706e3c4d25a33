"""A git repository, and HTTP servers on loopback that give it away or behave badly."""

import os
import ssl
import subprocess
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from dulwich.objects import Blob, Commit, Tag, Tree
from dulwich.repo import Repo
from dulwich.server import DictBackend
from dulwich.web import make_wsgi_chain

_FILE = 0o100644
_IDENTITY = b"A Packer <packer@example.org>"


class Repository:
    """A bare repository whose commits are made of what a test says, good or bad."""

    def __init__(self, directory: Path) -> None:
        self.repo = Repo.init_bare(str(directory), mkdir=True)
        self.repo.refs.set_symbolic_ref(b"HEAD", b"refs/heads/main")  # type: ignore[arg-type]  # a ref

    def commit(
        self, files: Mapping[str, bytes], modes: Mapping[str, int] = {}, branch: str | None = "main"
    ) -> str:
        """The id of a commit of these files, with no branch at it if there is to be none."""
        commit = Commit()
        commit.tree = self._tree(files, modes)
        commit.author = commit.committer = _IDENTITY
        commit.author_time = commit.commit_time = 1_760_000_000
        commit.author_timezone = commit.commit_timezone = 0
        commit.message = b"A commit"
        name: Any = f"refs/heads/{branch or 'main'}".encode()
        if name in self.repo.refs:
            commit.parents = [self.repo.refs[name]]
        self.repo.object_store.add_object(commit)
        if branch is not None:
            self.repo.refs[name] = commit.id
        return commit.id.decode()

    def tag(self, name: str, commit: str, *, is_annotated: bool) -> None:
        target: Any = commit.encode()
        if is_annotated:
            tag = Tag()
            tag.name, tag.object, tag.tagger = name.encode(), (Commit, target), _IDENTITY
            tag.message, tag.tag_time, tag.tag_timezone = b"A tag", 1_760_000_000, 0
            self.repo.object_store.add_object(tag)
            target = tag.id
        ref: Any = f"refs/tags/{name}".encode()
        self.repo.refs[ref] = target

    def _tree(self, files: Mapping[str, bytes], modes: Mapping[str, int]) -> Any:
        tree, below = Tree(), dict[str, dict[str, bytes]]()
        for path, content in files.items():
            first, _, rest = path.partition("/")
            mode = modes.get(path, _FILE)
            if rest:
                below.setdefault(first, {})[rest] = content
            elif mode == 0o160000:
                tree.add(first.encode(), mode, content)  # type: ignore[arg-type]  # the id of a commit
            else:
                blob = Blob.from_string(content)
                self.repo.object_store.add_object(blob)
                tree.add(first.encode(errors="surrogateescape").replace(b"%2F", b"/"), mode, blob.id)
        for name, inner in below.items():
            inner_modes = {
                path.removeprefix(f"{name}/"): mode
                for path, mode in modes.items()
                if path.startswith(f"{name}/")
            }
            tree.add(name.encode(), 0o040000, self._tree(inner, inner_modes))
        self.repo.object_store.add_object(tree)
        return tree.id


@contextmanager
def serving(
    repository: Repository,
    certificate: Path | None = None,
    password: str | None = None,
    **others: Repository,
) -> Iterator[str]:
    """The address of the repository on a git server; over TLS with a certificate and its key.

    With a `password`, as `user:token`, the server wants it. `others` are beside the repository.
    """
    repositories = {"repository": repository, **others}
    served: Any = {f"/owner/{name}": each.repo for name, each in repositories.items()}
    backend = DictBackend(served)
    application: Any = make_wsgi_chain(backend)
    if password is not None:
        application = _wanting(f"Basic {b64encode(password.encode()).decode()}", application)
    server = make_server("127.0.0.1", 0, application, _QuietServer, _QuietHandler)
    scheme = _with_tls(server, certificate)
    with server, _in_a_thread(server):
        yield f"{scheme}://127.0.0.1:{server.server_port}/owner/repository"


def _wanting(authorization: str, application: Any) -> Any:
    """The application for those who send this header."""

    def guarded(environment: dict[str, Any], start_response: Any) -> Any:
        if environment.get("HTTP_AUTHORIZATION") == authorization:
            return application(environment, start_response)
        start_response("401 Unauthorized", [("WWW-Authenticate", "Basic realm=git"), ("Content-Length", "0")])
        return []

    return guarded


@contextmanager
def serving_by_git(repository: Repository) -> Iterator[str]:
    """The same, by git itself (`git http-backend`)."""
    variables = {"GIT_PROJECT_ROOT": str(Path(repository.repo.path).parent), "GIT_HTTP_EXPORT_ALL": "1"}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            request = {
                "REQUEST_METHOD": self.command,
                "PATH_INFO": path,
                "QUERY_STRING": query,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""),
                "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
                "REMOTE_ADDR": "127.0.0.1",
            }
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = subprocess.run(
                ["git", "http-backend"],
                input=body,
                env=os.environ | variables | request,
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            head, _, content = answer.partition(b"\r\n\r\n")
            fields = dict(line.split(": ", 1) for line in head.decode().splitlines())
            self.send_response(int(fields.pop("Status", "200").split()[0]))
            for name, value in fields.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    with _QuietThreads(("127.0.0.1", 0), Handler) as server, _in_a_thread(server):
        yield f"http://127.0.0.1:{server.server_port}/{Path(repository.repo.path).name}"


@contextmanager
def answering(
    answer: Callable[[BaseHTTPRequestHandler], None], certificate: Path | None = None
) -> Iterator[tuple[str, list[str]]]:
    """The address of a server that answers every GET like this, and the paths that were asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            answer(self)

        def log_message(self, *_: object) -> None:
            pass

    with _QuietThreads(("127.0.0.1", 0), Handler) as server:
        scheme = _with_tls(server, certificate)
        with _in_a_thread(server):
            yield f"{scheme}://127.0.0.1:{server.server_port}/owner/repository", asked


def _with_tls(server: Any, certificate: Path | None) -> str:
    """The scheme of the server, which speaks TLS from now on if it has a certificate."""
    if certificate is None:
        return "http"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return "https"


class _QuietServer(WSGIServer):
    def handle_error(self, *_: object) -> None:
        """A client that goes away is what some tests are about."""


class _QuietThreads(ThreadingHTTPServer):
    def handle_error(self, *_: object) -> None:
        """As above."""


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def _in_a_thread(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def self_signed(file: Path) -> Path:
    """A certificate of 127.0.0.1 and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(certificate.public_bytes(Encoding.PEM) + secret)
    return file
