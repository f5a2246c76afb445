"""The server on a real database that is stopped, killed and frozen under load. DATABASE and TIDINGS_CQL name a cluster of
`tests/cql/database`; `tests/run cqlfaults` starts one."""

import json
import os
import pathlib
import subprocess
import tempfile
import threading
import time
import unittest
import uuid

from wire.server import BINARY, OUT, ROOT, SECRET, Server, free_port, mint, remember, users

DATABASE = os.environ.get("DATABASE")
# Number of times that the database is lost: stopped, killed, frozen, and again.
ROUNDS = int(os.environ.get("FAULT_ROUNDS", "3"))
FREEZE_SECONDS = float(os.environ.get("FREEZE_SECONDS", "2"))
# The effect of a signal, and the command that brings the node back.
FAULTS = [("stopped", "TERM", ("start", "1")), ("killed", "KILL", ("start", "1")), ("frozen", "STOP", ("signal", "1", "CONT"))]
REFUSED_SECONDS = 1.0
BACK_SECONDS = 2.0
STOP_SECONDS = 30.0


def database(command, *words):
    subprocess.run([ROOT / "tests/cql/database", command, DATABASE, *words], check=True, stdin=subprocess.DEVNULL)


def settings(keyspace=None):
    return {
        "store": "scylla",
        "scylla.nodes": os.environ["TIDINGS_CQL"],
        "scylla.keyspace": keyspace or f"faults_{uuid.uuid4().hex[:8]}",
    }


class Sender(threading.Thread):
    """Sends one message after the other to one conversation, each until it is acknowledged, under one client id."""

    def __init__(self, server, users_):
        super().__init__()
        self.server, self.sender = server, users_[0]
        self.conversation = server.conversation(*users_)
        self.token = mint(self.sender)
        self.acknowledged = []
        # Seconds that refused tries took.
        self.refusals = []
        self.first_acknowledged = None
        self.ending = threading.Event()
        self.fault = None

    def run(self):
        number = 0
        while not self.ending.is_set():
            body = {"content": f"message {number}", "clientMessageId": f"{self.sender}-{number}"}
            began = time.monotonic()
            try:
                status, answer = self.server.rest(self.token, "POST", f"/conversations/{self.conversation}/messages", body)
            except OSError as error:
                self.fault = error
                return
            took = time.monotonic() - began
            if status in (200, 201):
                self.acknowledged.append(answer["id"])
                self.first_acknowledged = self.first_acknowledged or time.monotonic()
                number += 1
            elif status == 503:
                self.refusals.append(took)
                time.sleep(0.05)
            else:
                self.fault = (status, answer)
                return


@unittest.skipUnless(DATABASE, "DATABASE names no cluster")
class Faults(unittest.TestCase):
    def setUp(self):
        self.server = Server(settings())
        self.addCleanup(self.server.stop)
        self.senders = [Sender(self.server, users(2)) for _ in range(8)]

    def ready(self):
        return self.server.rest(None, "GET", "/readyz")[0] == 200

    def wait_until(self, condition, seconds, what):
        began = time.monotonic()
        while not condition():
            self.assertLess(time.monotonic() - began, seconds, what)
            time.sleep(0.02)
        return time.monotonic() - began

    def check(self):
        """Every acknowledged message is stored once, in order, and chained to the one before it."""
        for sender in self.senders:
            sender.ending.set()
        for sender in self.senders:
            sender.join(30)
            self.assertFalse(sender.is_alive())
            self.assertIsNone(sender.fault)
            found, cursor = [], ""
            while cursor is not None:
                route = f"/conversations/{sender.conversation}/messages?limit=100{cursor and f'&cursor={cursor}'}"
                status, page = self.server.rest(sender.token, "GET", route)
                self.assertEqual(status, 200, page)
                found += page["messages"]
                cursor = page["nextCursor"] if page["hasMore"] else None
            found.reverse()
            ids = [message["id"] for message in found]
            self.assertEqual([id_ for id_ in ids if id_ in set(sender.acknowledged)], sender.acknowledged)
            texts = [message["content"] for message in found]
            self.assertEqual(len(set(texts)), len(texts), "a message is stored twice")
            for before, message in zip(found, found[1:]):
                self.assertEqual(message.get("prev"), before["id"])

    def lose_and_return(self, kind, signal, bring_back):
        """Takes the database away under load and gives it back; prints the times to refuse and to recover."""
        for sender in self.senders:
            sender.refusals.clear()
            sender.first_acknowledged = None
        database("signal", "1", signal)
        # A stopping node keeps answering until it has written its memory.
        timeout = STOP_SECONDS if kind == "stopped" else REFUSED_SECONDS + 0.5
        unready = self.wait_until(lambda: not self.ready(), timeout, "still ready")
        time.sleep(FREEZE_SECONDS if kind == "frozen" else 1.5)
        refusals = [took for sender in self.senders for took in sender.refusals]
        self.assertTrue(all(sender.refusals for sender in self.senders), "a send was not refused")
        self.assertLess(max(refusals), REFUSED_SECONDS)
        for route in (f"/conversations/{self.senders[0].conversation}/messages", "/conversations"):
            status, body = self.server.rest(self.senders[0].token, "GET", route)
            self.assertEqual((status, body["code"]), (503, "store_unavailable"))
        for sender in self.senders:
            sender.first_acknowledged = None
        database(*bring_back)
        back = time.monotonic()
        ready = self.wait_until(self.ready, BACK_SECONDS, "not ready again")
        self.wait_until(lambda: all(sender.first_acknowledged for sender in self.senders), BACK_SECONDS, "sends are not taken")
        taken = max(sender.first_acknowledged for sender in self.senders) - back
        print(f"{kind}: unready after {unready:.2f} s, refused within {max(refusals):.2f} s; ready {ready:.2f} s and sends taken {taken:.2f} s after the return", flush=True)
        return unready, max(refusals), ready, taken

    def test_a_database_that_is_killed_and_frozen_under_load(self):
        for sender in self.senders:
            sender.start()
        time.sleep(1)
        times = []
        for number in range(ROUNDS):
            times.append(self.lose_and_return(*FAULTS[number % len(FAULTS)]))
            time.sleep(1)
        self.check()
        acknowledged = sum(len(sender.acknowledged) for sender in self.senders)
        worst = ", ".join(f"{what} {max(column):.2f} s" for what, column in zip(("unready", "refused", "ready", "taken"), zip(*times)))
        print(f"{ROUNDS} times lost, {acknowledged} acknowledged; at worst {worst}")


@unittest.skipUnless(len(os.environ.get("TIDINGS_CQL", "").split(",")) == 3, "TIDINGS_CQL does not name three nodes")
class ThreeNodes(Faults):
    """One of three is killed, another frozen, each time after all are up: senders continue."""

    def setUp(self):
        replication = "{'class': 'NetworkTopologyStrategy', 'replication_factor': 3}"
        self.server = Server({**settings(), "scylla.replication": replication})
        self.addCleanup(self.server.stop)
        self.senders = [Sender(self.server, users(2)) for _ in range(8)]

    def test_a_database_that_is_killed_and_frozen_under_load(self):
        for sender in self.senders:
            sender.start()
        time.sleep(2)
        for lose, bring_back in [
            (("signal", "2", "KILL"), ("start", "2")),
            (("signal", "3", "STOP"), ("signal", "3", "CONT")),
        ]:
            for sender in self.senders:
                sender.refusals.clear()
            acknowledged = sum(len(sender.acknowledged) for sender in self.senders)
            database(*lose)
            time.sleep(10)
            refused = sum(len(sender.refusals) for sender in self.senders)
            acknowledged = sum(len(sender.acknowledged) for sender in self.senders) - acknowledged
            print(f"{lose}: {acknowledged} acknowledged and {refused} refused in 10 s")
            self.assertGreater(acknowledged, 0)
            self.assertTrue(self.ready())
            database(*bring_back)
            time.sleep(10)
        self.check()


@unittest.skipUnless(DATABASE, "DATABASE names no cluster")
class Processes(unittest.TestCase):
    """Helpers for tests of whole runs of the binary."""

    def command(self, **more):
        directory = tempfile.TemporaryDirectory(prefix="start-", dir=OUT)
        self.addCleanup(directory.cleanup)
        self.port = free_port()
        words = {"listen": f"127.0.0.1:{self.port}", "data_dir": directory.name, "auth.secret": remember(SECRET), **more}
        return [f"{key}={value}" for key, value in words.items()]

    def run_tidings(self, command, words, extra=(), **options):
        sets = [word for pair in words for word in ("--set", pair)]
        return subprocess.run([BINARY, command, *extra, *sets], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, **options)


class Starting(Processes):
    def test_development_without_a_database_reports_it_and_ends(self):
        outcome = self.run_tidings("serve", self.command(**{"store": "scylla", "scylla.nodes": f"127.0.0.1:{free_port()}"}))
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("the database cannot be reached", outcome.stderr)

    def test_statement_latencies_are_reported_while_the_server_runs(self):
        server = Server({**settings(), "scylla.report_every": "1s", "log.format": "json"})
        self.addCleanup(server.stop)
        sender, other = users(2)
        server.post(sender, server.conversation(sender, other), "counted")
        began = time.monotonic()
        while True:
            lines = [json.loads(line) for line in pathlib.Path(server.log).read_text().splitlines() if line.startswith("{")]
            reports = [line for line in lines if "since the last report" in line.get("message", "")]
            counts = [line["count"] for line in reports if line["statement"] == "put_message"]
            if counts:
                break
            self.assertLess(time.monotonic() - began, 10, "nothing is reported")
            time.sleep(0.1)
        # Once, not again with each report.
        self.assertEqual(counts, [1])

    def test_production_needs_the_schema_and_waits_for_the_database(self):
        production = {"profile": "production", **settings()}
        # One node: the default would ask for three.
        production["scylla.replication"] = "{'class': 'SimpleStrategy', 'replication_factor': 1}"
        words = self.command(**production)
        outcome = self.run_tidings("serve", words)
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("tidings migrate", outcome.stderr)
        self.assertIn("version 0 to 2", self.run_tidings("migrate", words).stdout)
        self.assertIn("version 2 already", self.run_tidings("migrate", words).stdout)

        database("signal", "1", "KILL")
        log = pathlib.Path(f"{OUT}/server-waiting-{self.port}.log")
        with open(log, "wb") as stderr:
            sets = [word for pair in words for word in ("--set", pair)]
            waiting = subprocess.Popen([BINARY, "serve", *sets], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        self.addCleanup(waiting.kill)
        time.sleep(2)
        self.assertIsNone(waiting.poll())
        self.assertIn("waiting for the database", log.read_text())
        waiting.terminate()
        self.assertEqual(waiting.wait(10), 1)
        with open(log, "wb") as stderr:
            waiting = subprocess.Popen([BINARY, "serve", *sets], stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr)
        self.addCleanup(waiting.kill)
        database("start", "1")
        server = Server.__new__(Server)
        server.port, server.process = self.port, waiting
        began = time.monotonic()
        while not server.ready():
            self.assertLess(time.monotonic() - began, 10)
            time.sleep(0.05)
        waiting.terminate()
        self.assertEqual(waiting.wait(10), 0)


@unittest.skipUnless(DATABASE, "DATABASE names no cluster")
class Erasing(Processes):
    def test_a_user_is_erased_beside_a_server(self):
        keys = settings()
        server = Server(keys)
        self.addCleanup(server.stop)
        phone = f"+4930{users(1)[0]}"
        status, login = server.rest(None, "POST", "/auth/login", {"phone": phone, "otp": "000000"})
        self.assertEqual(status, 200, login)
        user, (other, third) = login["userId"], users(2)
        direct, left = server.conversation(user, other), server.conversation(user, other, third)
        for conversation in (direct, left):
            for sender in (user, other):
                server.post(sender, conversation, "private")
        self.assertEqual(server.rest(mint(user), "POST", f"/conversations/{left}/leave")[0], 204)

        words = self.command(**keys)
        unknown = self.run_tidings("erase-user", words, extra=["--user", str(users(1)[0])])
        self.assertEqual(unknown.returncode, 1)
        self.assertIn("nothing of user", unknown.stderr)
        outcome = self.run_tidings("erase-user", words, extra=["--user", str(user)])
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        self.assertIn("messages 2, conversations 1, blocks 0, logins 1, sessions 1\n", outcome.stdout)
        self.assertEqual(server.rest(None, "POST", "/auth/refresh", {"refreshToken": login["refreshToken"]})[0], 401)

        # The server may show messages from its memory until it restarts.
        server.stop(keep=True)
        server.launch()
        for conversation in (direct, left):
            contents = [message["content"] for message in server.history(other, conversation)]
            self.assertEqual(contents, ["", "private"])
        # Another run finds the messages that arrived meanwhile.
        late = server.post(user, direct, "late")
        outcome = self.run_tidings("erase-user", words, extra=["--user", str(user)])
        self.assertIn("messages 1, conversations 0, blocks 0, logins 0, sessions 0\n", outcome.stdout)
        server.stop(keep=True)
        server.launch()
        self.assertEqual((late["content"], server.history(other, direct)[-1]["content"]), ("late", ""))


CERTIFICATES = pathlib.Path(DATABASE or ".") / "tls"


@unittest.skipUnless(CERTIFICATES.exists(), "DATABASE names no cluster with DATABASE_TLS")
class Encrypted(Processes):
    """A database that accepts only TLS, from clients with a certificate."""

    def tls(self, **more):
        keys = {
            **settings(),
            "scylla.tls": "true",
            "scylla.tls_ca": CERTIFICATES / "ca.pem",
            "scylla.tls_certificate": CERTIFICATES / "client.pem",
            "scylla.tls_key": CERTIFICATES / "client.key",
        }
        return {**keys, **{f"scylla.{name}": value for name, value in more.items()}}

    def refused(self, command, expected, settings):
        outcome = self.run_tidings(command, self.command(**settings))
        self.assertEqual(outcome.returncode, 1, outcome.stdout)
        for part in expected:
            self.assertIn(part, outcome.stderr)

    def test_messages_go_through_whether_nodes_bear_their_address_or_a_name(self):
        for name in ("", "cql.test"):
            server = Server(self.tls(tls_name=name))
            self.addCleanup(server.stop)
            sender, other = users(2)
            conversation = server.conversation(sender, other)
            stored = server.post(sender, conversation, "over TLS")
            self.assertEqual([message["id"] for message in server.history(other, conversation)], [stored["id"]])

    def test_untrusted_peers_are_refused_at_once(self):
        cases = [
            (["not trusted (scylla.tls_ca", "UnknownIssuer"], self.tls(tls_ca=CERTIFICATES / "other.pem")),
            (["scylla.tls_name", 'not valid for name "other.test"'], self.tls(tls_name="other.test")),
            (["does not accept this server's TLS"], self.tls(tls_certificate="", tls_key="")),
        ]
        for expected, keys in cases:
            self.refused("serve", expected, keys)
            # In production too: waiting would not help.
            self.refused("serve", expected, {**keys, "profile": "production"})
        self.refused("serve", ["the database cannot be reached"], settings())

    def test_bad_files_are_reported_before_connecting(self):
        missing, other_key = CERTIFICATES / "missing.pem", CERTIFICATES / "ca.key"
        cases = [
            (["scylla.tls_ca", str(missing), "No such file"], self.tls(tls_ca=missing)),
            (["scylla.tls_ca", "no certificate in PEM"], self.tls(tls_ca=CERTIFICATES / "trust.p12")),
            (["scylla.tls_certificate", "no certificate in PEM"], self.tls(tls_certificate=other_key)),
            (["scylla.tls_key", "KeyMismatch"], self.tls(tls_key=other_key)),
            (["scylla.tls_key", "no private key in PEM"], self.tls(tls_key=CERTIFICATES / "ca.pem")),
        ]
        for expected, keys in cases:
            for command in ("check-config", "serve", "migrate"):
                self.refused(command, expected, keys)
