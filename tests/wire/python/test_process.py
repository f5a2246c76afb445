"""The process as an operator meets it: refusals to start, tokens from the command line, its end under load."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import unittest

from wire.case import WireTest
from wire.raw import Closed, Stomp
from wire.server import BINARY, OUT, SECRET, free_port, mint, remember, users


def tidings(*words, **options):
    return subprocess.run([BINARY, *words], capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL, **options)


class Starting(unittest.TestCase):
    def setUp(self):
        OUT.mkdir(parents=True, exist_ok=True)
        directory = tempfile.TemporaryDirectory(prefix="start-", dir=OUT)
        self.addCleanup(directory.cleanup)
        self.directory = pathlib.Path(directory.name)

    def serve(self, **settings):
        words = {"listen": f"127.0.0.1:{free_port()}", "data_dir": self.directory / "data", "auth.secret": SECRET, **settings}
        return tidings("serve", *(word for key, value in words.items() for word in ("--set", f"{key}={value}")))

    def assert_refused(self, outcome, *words):
        self.assertNotEqual(outcome.returncode, 0)
        said = outcome.stdout + outcome.stderr
        for word in words:
            self.assertIn(word, said)
        self.assertNotIn("panicked", said)
        self.assertNotIn(SECRET, said)

    def test_an_unknown_key(self):
        self.assert_refused(self.serve(**{"limits.frame_bites": 1}), "limits.frame_bites")

    def test_a_bad_value(self):
        for key, value in [("limits.frame_bytes", "many"), ("limits.frame_bytes", "-1"), ("limits.first_frame", "soon"), ("shards", "0"), ("listen", "nowhere")]:
            self.assert_refused(self.serve(**{key: value}), key)

    def test_a_secret_that_is_too_short(self):
        self.assert_refused(self.serve(**{"auth.secret": "short"}), "auth.secret")

    def test_a_file_with_an_unknown_key_names_its_place(self):
        file = self.directory / "tidings.toml"
        file.write_text('listen = "127.0.0.1:0"\n[limits]\nframe_bites = 7\n')
        self.assert_refused(tidings("serve", "--config", str(file)), "frame_bites", "tidings.toml")
        self.assert_refused(tidings("check-config", "--config", str(file)), "frame_bites", "tidings.toml")

    def test_a_missing_file(self):
        self.assert_refused(tidings("serve", "--config", str(self.directory / "none.toml")), "none.toml")

    def test_a_good_file_passes_the_check(self):
        file = self.directory / "tidings.toml"
        file.write_text(f'listen = "127.0.0.1:0"\n[auth]\nsecret = "{SECRET}"\n[limits]\nfirst_frame = "5s"\n')
        outcome = tidings("check-config", "--config", str(file))
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        self.assertNotIn(SECRET, outcome.stdout + outcome.stderr)

    def test_a_port_that_is_taken(self):
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            self.assert_refused(self.serve(listen=f"127.0.0.1:{port}"), str(port))

    def test_the_doctor_finds_nothing_wrong(self):
        outcome = tidings("doctor")
        self.assertEqual(outcome.returncode, 0, outcome.stdout + outcome.stderr)

    def test_help_and_version(self):
        self.assertIn("serve", tidings("--help").stdout)
        self.assertRegex(tidings("--version").stdout, r"^tidings \d")


class Running(WireTest):
    def test_a_second_server_on_the_same_data(self):
        outcome = tidings(
            "serve", "--set", f"listen=127.0.0.1:{free_port()}", "--set", f"data_dir={self.server.directory}", "--set", f"auth.secret={SECRET}"
        )
        self.assertNotEqual(outcome.returncode, 0)
        self.assertIn(self.server.directory, outcome.stdout + outcome.stderr)

    def test_a_second_server_on_the_same_port(self):
        with tempfile.TemporaryDirectory(dir=OUT) as directory:
            outcome = tidings(
                "serve", "--set", f"listen=127.0.0.1:{self.server.port}", "--set", f"data_dir={directory}", "--set", f"auth.secret={SECRET}"
            )
        self.assertNotEqual(outcome.returncode, 0)
        self.assertIn(str(self.server.port), outcome.stdout + outcome.stderr)

    def test_a_token_of_the_command_line(self):
        (user,) = users(1)
        words = ["token", "--user", str(user), "--role", "admin", "--ttl", "1h", "--set", f"auth.secret={SECRET}"]
        token = remember(tidings(*words).stdout.strip())
        self.assertRegex(token, re.compile(r"^[\w-]+\.[\w-]+\.[\w-]+$"))
        status, me = self.server.rest(token, "GET", "/users/me")
        self.assertEqual(status, 200)
        self.assertEqual(me["roles"], ["admin"])

    def test_an_erased_user_is_gone_and_message_positions_stay(self):
        one, other = [f"+4930{number}" for number in users(2)]
        alice, bob = self.log_in(one), self.log_in(other)
        conversation = self.server.conversation(alice["userId"], bob["userId"])
        stored = [self.server.post(user["userId"], conversation, f"from {user['userId']}") for user in (alice, bob, alice)]
        settings = [word for key, value in self.server.settings.items() for word in ("--set", f"{key}={value}")]
        erase = ["erase-user", "--user", str(alice["userId"]), *settings]

        outcome = tidings(*erase)
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("in use", outcome.stderr)
        self.server.stop(keep=True)
        unknown = tidings("erase-user", "--user", str(users(1)[0]), *settings)
        self.assertEqual(unknown.returncode, 1)
        self.assertIn("nothing of user", unknown.stderr)
        outcome = tidings(*erase)
        self.assertEqual(outcome.returncode, 0, outcome.stderr)
        self.assertIn("messages 2, conversations 1, blocks 0, logins 1, sessions 1\n", outcome.stdout)

        self.server.launch()
        kept, content = {"id", "conversationId", "senderId", "createdAt", "prev"}, [None, f"from {bob['userId']}", None]
        for message, before, expected in zip(self.server.history(bob["userId"], conversation), stored, content):
            self.assertEqual({key: message.get(key) for key in kept}, {key: before.get(key) for key in kept})
            self.assertEqual((message["content"], message.get("erased", False)), (expected or "", expected is None))
        status, _ = self.server.rest(None, "POST", "/auth/refresh", {"refreshToken": alice["refreshToken"]})
        self.assertEqual(status, 401)
        # The old access token is refused too, and the phone creates another user.
        self.assertEqual(self.server.rest(alice["accessToken"], "GET", "/users/me")[0], 401)
        self.assertNotEqual(self.log_in(one)["userId"], alice["userId"])
        self.assertEqual(self.log_in(other)["userId"], bob["userId"])

    def log_in(self, phone):
        status, login = self.server.rest(None, "POST", "/auth/login", {"phone": phone, "otp": "000000"})
        self.assertEqual(status, 200, login)
        for name in ("accessToken", "refreshToken"):
            remember(login[name])
        return login

    def test_a_drain_under_load_loses_no_acknowledged_message(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        with Stomp.connect(self.server, mint(alice)) as sender:
            count = 200
            for number in range(count):
                body = json.dumps({"content": str(number)})
                sender.say(f"SEND\ndestination:/app/conversations/{conversation}/send\nreceipt:{number}\n\n{body}\0")
            sender.expect("RECEIPT")
            self.server.process.send_signal(signal.SIGTERM)
            acknowledged = ["0"]
            code = None
            while code is None:
                opcode, payload = self.receive_or_close(sender)
                if opcode is None:
                    code = payload
                elif payload.startswith(b"RECEIPT"):
                    acknowledged.append(payload.split(b"receipt-id:")[1].split(b"\n")[0].decode())
            self.assertEqual(code, 1012)
        self.assertEqual(self.server.process.wait(15), 0)
        self.server.launch()
        stored = []
        cursor = ""
        while True:
            _, page = self.server.rest(mint(bob), "GET", f"/conversations/{conversation}/messages?limit=100{cursor}")
            stored += [message["content"] for message in page["messages"]]
            if not page["hasMore"]:
                break
            cursor = f"&cursor={page['nextCursor']}"
        self.assertEqual(len(stored), len(set(stored)))
        self.assertLessEqual(set(acknowledged), set(stored))

    @staticmethod
    def receive_or_close(session):
        try:
            return session.receive()
        except Closed as closed:
            return None, closed.code

    def test_a_kill_loses_no_acknowledged_message(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        with Stomp.connect(self.server, mint(alice)) as sender:
            for number in range(50):
                body = json.dumps({"content": str(number)})
                sender.say(f"SEND\ndestination:/app/conversations/{conversation}/send\nreceipt:{number}\n\n{body}\0")
            for number in range(50):
                sender.expect("RECEIPT")
            self.server.process.kill()
            self.server.process.wait()
        self.server.launch()
        stored = [message["content"] for message in self.server.history(bob, conversation)]
        self.assertEqual(stored, [str(number) for number in range(50)])


if __name__ == "__main__":
    unittest.main()
