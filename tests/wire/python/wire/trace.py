"""A server under strace; its system calls show when a message was durable."""

import os
import pathlib
import re
import signal
import subprocess
import typing

from wire.server import OUT, Server

CALLS = "fdatasync,fsync,sendmsg,recvfrom,write,pwrite64"
SYNCS = ("fdatasync", "fsync")
WRITES = ("write", "pwrite64")
# Delay of every sync: an answer that does not wait for it visibly overtakes it.
SYNC_DELAY_US = 20_000


class TracedServer(Server):
    """`calls` returns the traced calls, once the server has ended."""

    def command(self):
        self.trace = pathlib.Path(f"{self.directory}.trace")
        delay = f"inject={','.join(SYNCS)}:delay_enter={SYNC_DELAY_US}"
        # Show whole requests, and the files of the descriptors.
        options = ["-f", "-tt", "-y", "-s", "4000", "-o", str(self.trace), "-e", f"trace={CALLS}", "-e", delay]
        return ["strace", *options, *super().command()]

    def children(self):
        """The traced process, which must be ended before strace: without it it would run on."""
        pid = self.process.pid
        return [int(child) for child in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def launch(self):
        super().launch()
        (self.traced,) = self.children()
        self.traced_file().touch()

    def traced_file(self):
        """For the clean-up: strace ends with the traced process."""
        return OUT / f"pid-{self.traced}"

    def calls(self):
        """Ends the server as an operator does; returns its calls, in order."""
        os.kill(self.traced, signal.SIGTERM)
        self.process.wait(timeout=20)
        self.traced_file().unlink(missing_ok=True)
        return parse(self.trace.read_text(errors="replace").splitlines())

    def stop(self, keep=False):
        if self.process.poll() is None:
            for child in self.children():
                os.kill(child, signal.SIGKILL)
                (OUT / f"pid-{child}").unlink(missing_ok=True)
            try:
                self.process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                pass
        super().stop(keep)
        # It holds tokens.
        self.trace.unlink(missing_ok=True)


class Call(typing.NamedTuple):
    """One system call; `begin` and `end` are lines of the trace, equal when nothing came between them."""

    name: str
    text: str
    result: int
    begin: int
    end: int

    def file(self):
        """The file or socket behind the descriptor that comes first."""
        found = re.match(r"\w+\(\d+<([^>]*)>", self.text)
        return found[1] if found else None


def parse(lines):
    """The calls of a trace that ended, in the order of their beginnings."""
    calls, open_calls = [], {}
    for number, line in enumerate(lines):
        pid, _, rest = line.split(maxsplit=2)
        begin = number
        if rest.endswith("<unfinished ...>"):
            open_calls[pid] = (rest.removesuffix("<unfinished ...>"), number)
            continue
        resumed = re.match(r"<\.\.\. \w+ resumed>", rest)
        if resumed and pid in open_calls:
            text, begin = open_calls.pop(pid)
            rest = text + rest[resumed.end() :]
        name, results = re.match(r"(\w+)\(", rest), re.findall(r"\)\s+= (-?\d+)", rest)
        if name and results:
            calls.append(Call(name[1], rest, int(results[-1]), begin, number))
    return sorted(calls, key=lambda call: call.begin)


def fault(calls, marker):
    """The fault in the handling of the message with this marker as its content and in all answers; None without one.

    It must be received, written to the journal, synced with it, and only then appear in answers.
    """

    def first(names, after, condition):
        found = (call for call in calls if call.name in names and call.begin > after and condition(call))
        return next(found, None)

    received = first(("recvfrom",), -1, lambda call: marker in call.text)
    if not received:
        return "never received"
    answered = first(("sendmsg",), -1, lambda call: marker in call.text)
    if not answered:
        return "never answered"
    written = first(WRITES, received.end, lambda call: marker in call.text and (call.file() or "").endswith(".jnl"))
    if not written or written.result <= 0 or written.end > answered.begin:
        return "not in the journal when it was answered"
    synced = first(SYNCS, written.end, lambda call: call.file() == written.file() and call.result == 0)
    if not synced or synced.end > answered.begin:
        return "answered before the journal was synced"
    return None
