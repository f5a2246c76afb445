"""Searches the logs of the wire tests' servers for secrets and panics, and prints how many checks passed.

The file `secrets` beside the logs holds every token and secret that a test created or received. The log may hold none
of them, nor anything shaped like a token, nor a one-time code, nor a trace of a panic.
"""

import pathlib
import re
import sys

TOKEN = re.compile(rb"eyJ[\w-]{8,}\.[\w-]*\.[\w-]*")
PANIC = re.compile(rb"panicked at|RUST_BACKTRACE|internal error: entered unreachable")


def main(out):
    logs = sorted(out.glob("server-*.log")) + sorted(out.glob("server-*.out"))
    text = {log: log.read_bytes() for log in logs}
    listed = (out / "secrets").read_bytes() if (out / "secrets").exists() else b""
    secrets = sorted({line for line in listed.split(b"\n") if len(line) >= 16})
    # Most are tokens, whose signature alone is unmistakable.
    needles = {secret.rsplit(b".", 1)[-1] if secret.count(b".") == 2 else secret for secret in secrets}
    needles = sorted(needle for needle in needles if len(needle) >= 16)
    failures = []
    for log, data in text.items():
        words = set(re.findall(rb"[\w-]{16,}", data))
        found = [needle for needle in needles if needle in words or (not re.fullmatch(rb"[\w-]+", needle) and needle in data)]
        failures += [f"{log}: a secret: {needle[:6].decode()}..." for needle in found]
        failures += [f"{log}: a token: {match.group()[:16].decode()}..." for match in TOKEN.finditer(data)]
        failures += [f"{log}: {line[:300].decode(errors='replace')}" for line in data.split(b"\n") if PANIC.search(line)]
    size = sum(map(len, text.values()))
    print(f"searched {len(logs)} files, {size} bytes, for {len(needles)} secrets")
    for failure in failures:
        print(failure)
    if not size or not needles:
        failures.append("nothing to search: the servers logged nothing, or no test wrote down a secret")
        print(failures[-1])
    print(f"{0 if failures else 1} passed, {1 if failures else 0} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(pathlib.Path(sys.argv[1])))
