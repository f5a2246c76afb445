"""The Autobahn test suite for WebSockets against `examples/conformance`, or against any other echo.

    python3 tests/autobahn/run.py [--url WS_URL] [core | sizes | compression | all | CASE...]

    core         all but the groups below: 247 cases, a quarter of a minute
    sizes        9.*: messages up to 16 MiB in up to a quarter of a million pieces, and round trips by the thousand
    compression  12.* and 13.*: permessage-deflate, which the server does not offer yet, so that all of them end as
                 UNIMPLEMENTED, and count as failed here
    CASE         as the suite names them: 6.4.1, or 7.*

Prints the failed cases with the suite's verdicts, and `N passed, N failed`. NON-STRICT counts as passed, as in the
suite, and is listed. The report in HTML is target/autobahn/report/index.html.

The suite needs Python 2.7, from $PY2, the path, or pyenv. If none of them has it, this script installs it: by apt, where
the distribution still has it (Debian 11, Ubuntu 22.04), or by pyenv. Debian 12 needs pyenv (`pyenv install 2.7.18`).
Without a Python 2.7 this script fails; it never skips.
"""

import argparse
import collections
import filecmp
import glob
import json
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "target/autobahn"
sys.path.insert(0, str(ROOT / "tests/wire/python"))

from wire.server import Conformance  # noqa: E402

GROUPS = {
    "core": (["*"], ["9.*", "12.*", "13.*"]),
    "sizes": (["9.*"], []),
    "compression": (["12.*", "13.*"], []),
    "all": (["*"], []),
}
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
# For a server that hangs: every group takes less than a tenth of this.
SECONDS_MAX = 1_800


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="of an echo that runs already; without it, examples/conformance is started")
    parser.add_argument("cases", nargs="*", default=["core"])
    options = parser.parse_args()
    groups = [GROUPS.get(case, ([case], [])) for case in options.cases]
    cases, left_out = ([case for group in groups for case in group[part]] for part in (0, 1))

    wstest = install()
    server = None if options.url else Conformance()
    try:
        fuzz(wstest, options.url or f"ws://127.0.0.1:{server.port}/ws-echo", cases, left_out)
    finally:
        if server:
            server.stop()
    return report()


def install():
    """The suite's program, in an environment of its own, which is reused until its requirements change."""
    wanted, stamp = HERE / "requirements.txt", WORK / "py2/requirements.txt"
    wstest = WORK / "py2/bin/wstest"
    if stamp.exists() and filecmp.cmp(wanted, stamp, shallow=False):
        return wstest
    python = python27() or install_python27()
    print(f"installing the suite for {python}", flush=True)
    shutil.rmtree(WORK, ignore_errors=True)
    pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps", "--require-hashes", "-r"]
    run([sys.executable, "-m", "venv", WORK / "tool"])
    run([WORK / "tool/bin/python", *pip, HERE / "tool.txt"])
    run([WORK / "tool/bin/virtualenv", "-q", "-p", python, WORK / "py2"])
    run([WORK / "py2/bin/python", "-W", "ignore", *pip, wanted])
    shutil.copy(wanted, stamp)
    return wstest


def run(command):
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def python27():
    """The path of a working Python 2.7, if one exists."""
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    found = [os.environ.get("PY2"), "python2.7", *sorted(glob.glob(f"{pyenv}/versions/2.7*/bin/python2.7"))]
    # pyenv's program on the path may exist and still refuse, so try it.
    check = "import ssl, sys, zlib; assert sys.version_info[:2] == (2, 7); print(sys.executable)"
    for candidate in filter(None, found):
        try:
            tried = subprocess.run([candidate, "-c", check], capture_output=True, text=True)
        except OSError:
            continue
        if tried.returncode == 0:
            return tried.stdout.strip()
    return None


def install_python27():
    policy = subprocess.run(["apt-cache", "policy", "python2.7"], capture_output=True, text=True).stdout if shutil.which("apt-cache") else ""
    as_root = [] if os.geteuid() == 0 else ["sudo"]
    if "Candidate:" in policy and "Candidate: (none)" not in policy:
        run([*as_root, "apt-get", "install", "-y", "-qq", "--no-install-recommends", "python2.7"])
    elif shutil.which("pyenv"):
        run(["pyenv", "install", "--skip-existing", "2.7.18"])
    python = python27()
    if not python:
        raise SystemExit(
            "Autobahn needs Python 2.7, and neither apt nor pyenv has one here. Install pyenv and run `pyenv install 2.7.18`, "
            "or name a Python 2.7 with the modules ssl and zlib in PY2."
        )
    return python


def fuzz(wstest, url, cases, left_out):
    """Runs the cases; each is a connection, or several, to the echo at `url`."""
    shutil.rmtree(WORK / "report", ignore_errors=True)
    spec = {
        "options": {"failByDrop": False},
        "outdir": str(WORK / "report"),
        "servers": [{"agent": "tidings", "url": url, "options": {"version": 18}}],
        "cases": cases,
        "exclude-cases": left_out,
        "exclude-agent-cases": {},
    }
    (WORK / "spec.json").write_text(json.dumps(spec))
    with open(WORK / "log", "w", encoding="utf-8") as log:
        command = [wstest, "-m", "fuzzingclient", "-s", WORK / "spec.json"]
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=SECONDS_MAX)


def report():
    """Prints the results; returns the exit status."""
    index = WORK / "report/index.json"
    if not index.exists():
        raise SystemExit(f"the suite has reported nothing; it says:\n{(WORK / 'log').read_text()[-2000:]}")
    results = json.loads(index.read_text())["tidings"]
    order = sorted(results, key=lambda case: [int(part) for part in case.split(".")])
    failed = [case for case in order if not {results[case]["behavior"], results[case]["behaviorClose"]} <= PASSED]
    for case in failed:
        result = json.loads((WORK / "report" / results[case]["reportfile"]).read_text())
        print(f"FAILED {case}: {results[case]['behavior']}, close {results[case]['behaviorClose']}: {result.get('result', '')}")
    counts = collections.Counter(result["behavior"] for result in results.values())
    print(", ".join(f"{count} {behavior}" for behavior, count in counts.most_common()))
    lenient = [case for case in order if results[case]["behavior"] == "NON-STRICT"]
    if lenient:
        print("NON-STRICT:", *lenient)
    print(f"{len(order) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed or not order else 0


if __name__ == "__main__":
    sys.exit(main())
