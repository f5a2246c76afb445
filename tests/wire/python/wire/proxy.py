"""nginx and haproxy as they come with Debian, in front of a server, under the configurations of `deploy/`."""

import pathlib
import re
import shutil
import subprocess
import tempfile
import time

from wire.raw import Http
from wire.server import OUT, ROOT, free_port


def program(name):
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise FileNotFoundError(f"{name} is not installed: apt-get install {name}")
    return found


def fill_in(text, changes):
    """The configuration with each pattern replaced; all patterns must occur."""
    for pattern, value in changes.items():
        text, count = re.subn(pattern, value, text)
        assert count, f"{pattern} is not in the configuration"
    return text


class Proxy:
    """A proxy's process in front of `server`; `port` is its own. Its log is kept for the search after all tests."""

    def __init__(self, server, changes=None):
        self.port = free_port()
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="data-", dir=OUT))
        self.directory.chmod(0o755)
        # A name that the search for tokens includes.
        self.log = OUT / f"server-{type(self).__name__.lower()}-{self.port}.log"
        self.log.touch()
        command = self.configure(server.port, changes or {})
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        deadline = time.monotonic() + 20
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError("the proxy did not start:\n" + self.log.read_text()[-2000:])
            time.sleep(0.05)

    def ready(self):
        try:
            with Http(self) as connection:
                return connection.ask("GET", "/readyz").status == 200
        except (OSError, EOFError):
            return False

    def stop(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class Nginx(Proxy):
    def site(self, upstream, changes):
        return fill_in(
            (ROOT / "deploy/nginx.conf").read_text(),
            {
                r"listen 80;": f"listen 127.0.0.1:{self.port};",
                r"server 127\.0\.0\.1:8080;": f"server 127.0.0.1:{upstream};",
                r"access_log \S+ ": f"access_log {self.log} ",
                r"error_log \S+ ": f"error_log {self.log} ",
                **changes,
            },
        )

    def configure(self, upstream, changes):
        site = self.site(upstream, changes)
        paths = "\n".join(
            f"{name}_temp_path {self.directory}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (self.directory / "nginx.conf").write_text(
            f"daemon off;\npid {self.directory}/pid;\nerror_log {self.log} crit;\nworker_processes 2;\n"
            f"events {{ worker_connections 1024; }}\nhttp {{\n{paths}\naccess_log off;\n{site}\n}}\n"
        )
        return [program("nginx"), "-p", str(self.directory), "-c", str(self.directory / "nginx.conf"), "-e", str(self.log)]


class BareNginx(Nginx):
    """Only the address of the server: HTTP/1.0, no upgrades, buffers, a time-out of 60 s."""

    def site(self, upstream, changes):
        return f"server {{ listen 127.0.0.1:{self.port}; location / {{ proxy_pass http://127.0.0.1:{upstream}; }} }}"


class HaProxy(Proxy):
    def configure(self, upstream, changes):
        own = {
            r"bind :80": f"bind 127.0.0.1:{self.port}",
            r"node1 127\.0\.0\.1:8080": f"node1 127.0.0.1:{upstream}",
            r"maxconn 20000": "maxconn 1000",
            r"httpchk GET /readyz": r"httpchk GET /readyz\n    default-server inter 200ms",
        }
        (self.directory / "haproxy.cfg").write_text(fill_in((ROOT / "deploy/haproxy.cfg").read_text(), own | changes))
        return [program("haproxy"), "-db", "-f", str(self.directory / "haproxy.cfg")]


class BareHaProxy(HaProxy):
    """Only addresses, and the time-outs without which haproxy warns."""

    def configure(self, upstream, changes):
        (self.directory / "haproxy.cfg").write_text(
            "defaults\n mode http\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
            f"listen tidings\n bind 127.0.0.1:{self.port}\n server node1 127.0.0.1:{upstream}\n"
        )
        return [program("haproxy"), "-db", "-f", str(self.directory / "haproxy.cfg")]
