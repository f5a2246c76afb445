"""`tidings import` as an operator uses it: a file goes in while no server runs, and clients find it afterwards. With TIDINGS_CQL the
same on the database that it names, whose rows are gone with it."""

import json
import os
import subprocess
import tempfile
import unittest
import uuid

from wire.server import BINARY, OUT, ROOMY, SECRET, Server, mint

LINE_BYTES_MAX = 128 * 1024


def conversation(number, *participants, **more):
    return json.dumps({"conversationId": number, "participants": participants, **more})


def said(number, sender, content, at, **more):
    return json.dumps({"conversationId": number, "senderId": sender, "content": content, "createdAt": at, **more})


def second(number):
    """The time of an invented message."""
    return f"2020-02-29T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z"


class Import(unittest.TestCase):
    def setUp(self):
        OUT.mkdir(parents=True, exist_ok=True)
        directory = tempfile.TemporaryDirectory(prefix="data-import-", dir=OUT)
        self.addCleanup(directory.cleanup)
        self.settings = {"data_dir": directory.name, "auth.secret": SECRET}
        if nodes := os.environ.get("TIDINGS_CQL"):
            self.settings |= {"store": "scylla", "scylla.nodes": nodes, "scylla.keyspace": f"import_{uuid.uuid4().hex[:8]}"}

    def run_import(self, lines, **settings):
        """The command's result for these lines: exit code, standard output, and standard error."""
        words = (word for key, value in (self.settings | settings).items() for word in ("--set", f"{key}={value}"))
        text = b"".join(line if isinstance(line, bytes) else line.encode() + b"\n" for line in lines)
        outcome = subprocess.run([BINARY, "import", "-", *words], input=text, capture_output=True, timeout=120)
        self.assertNotIn(b"panicked", outcome.stderr)
        return outcome.returncode, outcome.stdout.decode(), outcome.stderr.decode()

    def must_import(self, lines, *words):
        code, said_, error = self.run_import(lines)
        self.assertEqual(code, 0, error)
        for word in words:
            self.assertIn(word, said_)

    def must_refuse(self, lines, reason, *words):
        code, said_, error = self.run_import(lines)
        self.assertEqual(code, 1, said_)
        self.assertIn(f"tidings: {reason}", error)
        for word in words:
            self.assertIn(word, said_)

    def serve(self):
        server = Server(self.settings | ROOMY)
        self.addCleanup(server.stop)
        return server

    def read_all(self, server, user, number):
        """A history from its end to its beginning, page by page: as messages, oldest first."""
        messages, cursor = [], ""
        while True:
            status, page = server.rest(mint(user), "GET", f"/conversations/{number}/messages?limit=100{cursor}")
            self.assertEqual(status, 200, page)
            messages += page["messages"]
            self.assertEqual(page["hasMore"], page["nextCursor"] is not None)
            if not page["hasMore"]:
                return messages[::-1]
            cursor = f"&cursor={page['nextCursor']}"


class History(Import):
    def test_imported_history_reads_like_sent_history(self):
        lines = [conversation(7, 1, 2, createdAt=second(0)), conversation(8, 1, 2, 3, kind="group", title="Tea")]
        # Ten messages a second: nine of them follow the one before. Two conversations alternate.
        for number in range(250):
            lines.append(said(7, 1 + number % 2, f"message {number}", second(number // 10), clientMessageId=f"k{number}"))
            lines.append(said(8, 1 + number % 3, f"tea {number}", second(number // 10)))
        lines.append(said(7, 2, "the last <b>", second(100)))
        self.must_import(lines, "imported 2 conversations and 501 messages")

        server = self.serve()
        history = self.read_all(server, 1, 7)
        expect = [f"message {number}" for number in range(250)] + ["the last &lt;b>"]
        self.assertEqual([message["content"] for message in history], expect)
        self.assertEqual([message["senderId"] for message in history[:4]], [1, 2, 1, 2])
        self.assertEqual([message.get("clientMessageId") for message in history[:2]], ["k0", "k1"])
        self.assertEqual([message.get("prev") for message in history], [None, *(message["id"] for message in history[:-1])])
        self.assertTrue(all(message["createdAt"][:19] == second(number // 10)[:19] for number, message in enumerate(history[:250])))

        # Any position works as a cursor, in both directions, and single messages are found.
        middle = history[125]
        for direction, found in [("cursor", history[105:125][::-1]), ("after", history[126:146])]:
            status, page = server.rest(mint(2), "GET", f"/conversations/7/messages?{direction}={middle['id']}")
            self.assertEqual((status, page["messages"]), (200, found))
        self.assertEqual(server.rest(mint(2), "GET", f"/conversations/7/messages/{middle['id']}"), (200, middle))

        # Lists, unread counts and read marks include imported messages.
        status, list_ = server.rest(mint(1), "GET", "/conversations")
        self.assertEqual(status, 200)
        direct, group = list_["conversations"]
        self.assertEqual((direct["id"], direct["kind"], direct["createdAt"][:19], direct["unreadCount"]), (7, "direct", second(0)[:19], 2))
        self.assertEqual(direct["lastMessage"], history[-1])
        self.assertEqual((group["id"], group["title"], group["createdBy"], group["unreadCount"]), (8, "Tea", 1, 0))
        self.assertEqual(server.rest(mint(3), "GET", "/conversations")[1]["conversations"][0]["unreadCount"], 1)
        status, _ = server.rest(mint(1), "POST", f"/messages/{history[-1]['id']}/read")
        self.assertEqual(status, 200)
        self.assertEqual(server.rest(mint(1), "GET", "/conversations")[1]["conversations"][0]["unreadCount"], 0)

        # New messages follow the imported ones.
        live = server.post(1, 7, "and on")
        self.assertEqual((live["prev"], live["createdAt"] > history[-1]["createdAt"]), (history[-1]["id"], True))
        self.assertEqual(self.read_all(server, 2, 7), [*history, live])

    def test_thousands_of_messages_and_the_same_file_again(self):
        lines = []
        for number in range(1, 201):
            lines.append(conversation(number, number, number + 1))
            lines += [said(number, number + index % 2, f"{number}: {index}", second(index)) for index in range(99)]
        # Interrupted at about half of it, in the middle of a conversation.
        self.must_import(lines[:10_037], "imported 101 conversations and 9936 messages")
        self.must_import(lines, "imported 99 conversations and 9864 messages", "101 conversations, 9936 messages")
        self.must_import(lines, "imported 0 conversations and 0 messages", "200 conversations, 19800 messages")
        server = self.serve()
        for number in (1, 100, 101, 102, 200):
            contents = [message["content"] for message in self.read_all(server, number, number)]
            self.assertEqual(contents, [f"{number}: {index}" for index in range(99)])


class Refusals(Import):
    def check(self, bad, reason):
        """A bad line in the middle: all before it is stored, nothing after it, and the rest follows once it is corrected."""
        before = [conversation(7, 1, 2), said(7, 1, "one", second(1))]
        behind = [said(7, 2, "two", second(3))]
        self.must_refuse([*before, bad, *behind], f"line 3: {reason}", " 1 messages")
        self.must_import([*before, *behind], "imported 0 conversations and 1 messages", "there already: 1 conversations, 1 messages")
        # The next check starts from scratch.
        self.setUp()

    def test_lines_that_cannot_be_read(self):
        self.check("garbage", "the line is not valid JSON")
        self.check(b'{"conversationId":7,"senderId":1,"content":"\xff","createdAt":"2020-01-01T00:00:00Z"}\n', "the line is not valid UTF-8")
        self.check(said(7, 1, "x", "29 February"), "createdAt is no time of RFC 3339")
        self.check(said(7, 1, "x" * 4001, second(2)), "content is longer than 4000 characters")
        self.check(said(7, 1, "x", second(2), pad="x" * LINE_BYTES_MAX), f"longer than {LINE_BYTES_MAX} bytes")

    def test_a_line_at_the_limit_is_read(self):
        line = said(7, 1, "one", second(1), pad="")
        padded = line.replace('"pad": ""', f'"pad": "{"x" * (LINE_BYTES_MAX - len(line))}"')
        self.assertEqual(len(padded), LINE_BYTES_MAX)
        # The last line may be without its end.
        self.must_import([conversation(7, 1, 2), padded.encode()], "1 messages")

    def test_lines_that_do_not_fit(self):
        self.check(said(8, 1, "x", second(2)), "there is no conversation 8")
        self.check(said(7, 3, "x", second(2)), "user 3 is not a participant of conversation 7")
        self.check(said(7, 1, "x", second(0)), "older than the message before it")
        self.check(conversation(9, 2, 1), "the pair has the direct conversation 7 already")

    def test_messages_older_than_the_last_stored_one(self):
        self.must_import([conversation(7, 1, 2), said(7, 1, "one", second(1)), said(7, 1, "two", second(5))])
        self.must_refuse([said(7, 1, "late", second(3))], "line 1: older than the last message that is stored")
        self.must_refuse([said(7, 1, "other", second(5))], "line 1: another message is stored with this time")
        self.must_import([said(7, 1, "three", second(6))], "1 messages")

    def test_a_missing_file(self):
        outcome = subprocess.run([BINARY, "import", "/nowhere/lines"], capture_output=True, text=True, timeout=20)
        self.assertEqual(outcome.returncode, 1)
        self.assertIn("/nowhere/lines: No such file", outcome.stderr)

    @unittest.skipIf("TIDINGS_CQL" in os.environ, "a database has many users")
    def test_a_server_running_on_the_directory(self):
        server = self.serve()
        self.must_refuse([conversation(7, 1, 2)], f"{self.settings['data_dir']} is in use by process {server.process.pid}: stop it")
        self.assertEqual(server.rest(mint(1), "GET", "/conversations")[1]["conversations"], [])
