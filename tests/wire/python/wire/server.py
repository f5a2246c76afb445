"""A tidings server with a free port and an empty data directory; its log is kept for the search after all tests."""

import base64
import hashlib
import hmac
import itertools
import json
import os
import pathlib
import random
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid

ROOT = pathlib.Path(__file__).resolve().parents[4]
BINARY = os.environ.get("TIDINGS_BIN", str(ROOT / "target/debug/tidings"))
CONFORMANCE = os.environ.get("TIDINGS_CONFORMANCE", str(ROOT / "target/debug/examples/conformance"))
OUT = pathlib.Path(os.environ.get("WIRE_OUT", str(ROOT / "target/wire")))

SECRET = "wire-tests-sign-their-tokens-with-this-secret"
ADMIN = 9_000_000_001

# Limits raised so that they do not disturb tests of other things.
ROOMY = {
    "limits.messages_per_minute": 1_000_000,
    "limits.messages_burst": 100_000,
    "limits.otp_per_phone_hour": 10_000,
    "limits.auth_per_address_minute": 100_000,
}

_users = itertools.count(10_000_000_000 + random.randrange(1_000_000) * 1_000)


def users(count):
    """User ids that no other test uses."""
    return [next(_users) for _ in range(count)]


def remember(secret):
    """Records a secret that no log may hold."""
    OUT.mkdir(parents=True, exist_ok=True)
    with open(OUT / "secrets", "a", encoding="ascii") as secrets:
        secrets.write(secret + "\n")
    return secret


def base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def sign(header, claims, secret=SECRET):
    """A token of this header and these claims, each a dict or raw bytes, with an HMAC-SHA256 signature."""
    parts = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, claims)]
    text = ".".join(base64url(part) for part in parts)
    signature = hmac.new(secret.encode(), text.encode(), hashlib.sha256).digest()
    return remember(f"{text}.{base64url(signature)}")


HS256 = {"alg": "HS256", "typ": "JWT"}


def claims_of(user, ttl=3600, **more):
    """The claims of a good token; `more` replaces or, as None, removes."""
    now = int(time.time())
    claims = {"sub": str(user), "iat": now, "exp": now + ttl, "jti": uuid.uuid4().hex} | more
    return {name: value for name, value in claims.items() if value is not None}


def mint(user, ttl=3600, **more):
    return sign(HS256, claims_of(user, ttl, **more))


def admin():
    return mint(ADMIN, roles=["admin"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One process of the server, under the configuration `settings` on top of the tests' own."""

    def __init__(self, settings=None):
        OUT.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.directory = tempfile.mkdtemp(prefix="data-", dir=OUT)
        self.settings = {
            "listen": f"127.0.0.1:{self.port}",
            "data_dir": self.directory,
            "shards": 2,
            "auth.secret": SECRET,
            # Secrets must not be logged at this level either.
            "log.level": "debug",
            **ROOMY,
            **(settings or {}),
        }
        self.process = None
        remember(SECRET)
        self.launch()

    def launch(self):
        name = OUT / f"server-{self.port}-{time.time_ns()}"
        self.log = f"{name}.log"
        with open(f"{name}.out", "ab") as stdout, open(self.log, "ab") as stderr:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
            )
        # For the clean-up after interrupted tests.
        self.pid_file().touch()
        deadline = time.monotonic() + 20
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop(keep=True)
                raise RuntimeError("the server did not start:\n" + pathlib.Path(self.log).read_text()[-2000:])
            time.sleep(0.02)

    def command(self):
        return [BINARY, "serve", *(word for key, value in self.settings.items() for word in ("--set", f"{key}={value}"))]

    def pid_file(self):
        return OUT / f"pid-{self.process.pid}"

    def ready(self):
        try:
            return self.rest(None, "GET", "/readyz")[0] == 200
        except OSError:
            return False

    def stop(self, keep=False):
        """Kills the process and removes its data, unless it is to `keep`."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if self.process:
            self.pid_file().unlink(missing_ok=True)
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def resident_bytes(self):
        """Resident memory of the process."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise RuntimeError("no VmRSS")

    def rest(self, token, method, route, body=None, headers=None):
        """A REST call by a well-behaved client: (status, body), the body parsed when it is JSON."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{route}", method=method, headers=headers or {})
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                status, content, data = response.status, response.headers.get_content_type(), response.read()
        except urllib.error.HTTPError as error:
            with error:
                status, content, data = error.code, error.headers.get_content_type(), error.read()
        return status, json.loads(data) if content == "application/json" and data else data

    def conversation(self, *participants):
        """The id of a conversation that the first of these users created."""
        kind = "direct" if len(participants) == 2 else "group"
        body = {"kind": kind, "participants": list(participants[1:])}
        status, made = self.rest(mint(participants[0]), "POST", "/conversations", body)
        assert status == 201, (status, made)
        return made["id"]

    def post(self, user, conversation, content):
        status, stored = self.rest(mint(user), "POST", f"/conversations/{conversation}/messages", {"content": content})
        assert status == 201, (status, stored)
        return stored

    def history(self, user, conversation):
        """Messages, oldest first."""
        status, page = self.rest(mint(user), "GET", f"/conversations/{conversation}/messages?limit=100")
        assert status == 200, (status, page)
        return page["messages"][::-1]


class Conformance(Server):
    """The example server for protocol suites, whose only setting is its address."""

    def command(self):
        return ["env", f"TIDINGS_LISTEN=127.0.0.1:{self.port}", CONFORMANCE]

    def ready(self):
        try:
            return self.rest(None, "GET", "/")[0] == 200
        except OSError:
            return False
