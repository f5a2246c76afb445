"""Runs the README's quickstart as printed: its blocks, one after the other, in one shell, as a reader would paste them.

The server is started as the README says, without arguments in an empty directory. Where its port is taken, server and
blocks use another one; nothing else is changed.
"""

import json
import os
import pathlib
import queue
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("TIDINGS_BIN", str(ROOT / "target/release/tidings"))
OUT = pathlib.Path(os.environ.get("WIRE_OUT", str(ROOT / "target/wire")))
ADDRESS = "127.0.0.1:8080"
PATIENCE = 120


def quickstart():
    text = (ROOT / "README.md").read_text()
    part = text.split("<!-- quickstart", 1)[1].split("<!-- end of quickstart -->", 1)[0]
    return re.findall(r"^```sh\n(.*?)^```$", part, re.M | re.S)


def address():
    """The README's own address if it is free, else another."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", int(ADDRESS.split(":")[1])))
            return ADDRESS
        except OSError:
            with socket.socket() as other:
                other.bind(("127.0.0.1", 0))
                return f"127.0.0.1:{other.getsockname()[1]}"


class Shell:
    """One bash for all blocks; its output and its children's are kept by line."""

    def __init__(self, directory):
        self.process = subprocess.Popen(
            ["bash"], cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            self.lines.put(line.rstrip("\n"))

    def until(self, wanted):
        """Lines up to the one that begins with `wanted`, that one included."""
        seen = []
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                line = self.lines.get(timeout=1)
            except queue.Empty:
                if self.process.poll() is not None:
                    break
                continue
            print("   |", re.sub(r"eyJ[\w.-]+", "<token>", line), flush=True)
            seen.append(line)
            if line.startswith(wanted):
                return seen
        raise AssertionError(f"never printed: {wanted}")

    def paste(self, block):
        """Runs a block and returns its output; fails if its last command did."""
        self.process.stdin.write(f"{block}\necho \"end of block: $?\"\n")
        self.process.stdin.flush()
        seen = self.until("end of block: ")
        assert seen[-1] == "end of block: 0", seen[-1]
        return seen[:-1]

    def close(self):
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def objects(lines):
    """The JSON objects in the output, each with the text before it; two programs print at the same time."""
    text, at, found = "\n".join(lines), 0, []
    while (at := text.find("{", at)) >= 0:
        value, end = json.JSONDecoder().raw_decode(text, at)
        found.append((text[:at].rstrip(), value))
        at = end
    return found


def contents(page):
    """Contents of a page of history, newest first."""
    return [message["content"] for message in page["messages"]]


def follow(blocks, shell):
    """Checks the README's statements about its blocks, block by block."""
    login, history, listen, send, end = blocks
    shell.paste(login)
    (_, sent), (_, page) = objects(shell.paste(history))
    assert sent["content"] == "Hello, Bob", sent
    assert contents(page) == ["Hello, Bob"], page
    yield "login, conversation, send and history"

    if "listening" not in shell.paste(listen):
        shell.until("listening")
    yield "a WebSocket client"

    printed = shell.paste(send)
    if not any("received" in line for line in printed):
        printed += shell.until("received")
    received = [value["content"] for before, value in objects(printed) if before.endswith("received")]
    assert received == ["Can you hear me?"], received
    pages = [contents(value) for _, value in objects(printed) if "messages" in value]
    assert pages == [["Can you hear me?", "Hello, Alice", "Hello, Bob"]], pages
    yield "sent messages arrive"
    shell.paste(end)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="data-readme-", dir=OUT))
    listen = address()
    blocks = [block.replace(ADDRESS, listen) for block in quickstart()]
    environment = os.environ if listen == ADDRESS else os.environ | {"TIDINGS_LISTEN": listen}
    print(f"a server on {listen}")
    passed, failed, server, shell = 0, 0, None, None
    try:
        with open(OUT / "server-readme.out", "wb") as stdout, open(OUT / "server-readme.log", "wb") as stderr:
            server = subprocess.Popen([BINARY], cwd=directory, env=environment, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        shell = Shell(directory)
        deadline = time.monotonic() + 20
        while True:
            try:
                urllib.request.urlopen(f"http://{listen}/readyz", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (OUT / "server-readme.log").read_text()[-2000:]
                time.sleep(0.02)
        for name in follow(blocks, shell):
            passed += 1
            print(f"ok: {name}")
        assert (directory / "data").is_dir(), "no ./data"
        server.terminate()
        assert server.wait(15) == 0, f"the server ended with {server.returncode}"
        passed += 1
        print("ok: ./data is there, and the server ends with success")
    except (AssertionError, ValueError, KeyError, OSError) as fault:
        failed = 1
        print(f"FAILED: {fault!r}")
    finally:
        if shell:
            shell.close()
        if server and server.poll() is None:
            server.kill()
            server.wait()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
