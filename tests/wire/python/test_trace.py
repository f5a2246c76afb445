"""Checks in the kernel's trace that a message is on disk before any client receives it."""

import json
import unittest
import uuid

from wire.raw import TEXT, Http, Stomp, packet
from wire.server import mint, users
from wire.trace import TracedServer, fault, parse

MESSAGES = 5


class Trace(unittest.TestCase):
    def faults(self, settings):
        """The faults in the trace of some messages, sent in turn over STOMP and REST: one entry for each."""
        server = TracedServer(settings)
        self.addCleanup(server.stop)
        sender, receiver = users(2)
        conversation = server.conversation(sender, receiver)
        markers = [f"traced-{uuid.uuid4().hex}" for _ in range(2 * MESSAGES)]
        with Stomp.connect(server, mint(receiver)) as other, Stomp.connect(server, mint(sender)) as session:
            other.subscribe("/user/queue/messages")
            for marker in markers[:MESSAGES]:
                body = json.dumps({"conversationId": conversation, "content": marker})
                frame = f"SEND\ndestination:/app/send\nreceipt:{marker}\n\n{body}\0"
                # Masked with zeros it is readable in the trace.
                session.send(packet(TEXT, frame.encode(), key=bytes(4)))
                self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], marker)
                self.assertEqual(other.expect("MESSAGE").json()["content"], marker)
            with Http(server) as http:
                headers = [f"Authorization: Bearer {mint(sender)}", "Content-Type: application/json"]
                for marker in markers[MESSAGES:]:
                    path = f"/conversations/{conversation}/messages"
                    response = http.ask("POST", path, headers, json.dumps({"content": marker}).encode())
                    self.assertEqual((response.status, response.json()["content"]), (201, marker))
        calls = server.calls()
        return [fault(calls, marker) for marker in markers]

    def test_a_message_is_synced_before_any_client_receives_it(self):
        self.assertEqual(self.faults({}), [None] * 2 * MESSAGES)

    def test_without_syncs_the_trace_shows_that_they_are_missing(self):
        expect = ["answered before the journal was synced"] * 2 * MESSAGES
        self.assertEqual(self.faults({"embedded.sync": "false"}), expect)


RECEIVED = '9 t recvfrom(7<socket:[1]>, "SEND m", 65536, 0, NULL, NULL) = 6'
WRITTEN = '8 t write(5</data/0.jnl>, "m", 1) = 1'
SYNCED = "8 t fdatasync(5</data/0.jnl>) = 0 (DELAYED)"
SYNC_BEGINS = "8 t fdatasync(5</data/0.jnl> <unfinished ...>"
SYNC_ENDS = "8 t <... fdatasync resumed>) = 0 (DELAYED)"
ANSWERED = '9 t sendmsg(7<socket:[1]>, {msg_iov=[{iov_base="RECEIPT m", iov_len=9}]}, MSG_DONTWAIT) = 9'

UNSYNCED = "answered before the journal was synced"
UNWRITTEN = "not in the journal when it was answered"


class Judgement(unittest.TestCase):
    """The judgement itself, on traces that were made up."""

    def check(self, expect, *lines):
        self.assertEqual(fault(parse(lines), "m"), expect, lines)

    def test_of_every_order(self):
        self.check(None, RECEIVED, WRITTEN, SYNCED, ANSWERED)
        self.check(None, RECEIVED, WRITTEN, SYNC_BEGINS, SYNC_ENDS, ANSWERED, SYNCED)
        self.check("never received", WRITTEN, SYNCED, ANSWERED)
        self.check("never answered", RECEIVED, WRITTEN, SYNCED)
        self.check(UNWRITTEN, RECEIVED, SYNCED, ANSWERED)
        self.check(UNWRITTEN, RECEIVED, ANSWERED, WRITTEN, SYNCED)
        self.check(UNWRITTEN, WRITTEN, SYNCED, RECEIVED, ANSWERED)
        self.check(UNWRITTEN, RECEIVED, WRITTEN.replace("0.jnl", "log"), SYNCED, ANSWERED)
        self.check(UNSYNCED, RECEIVED, WRITTEN, ANSWERED)
        self.check(UNSYNCED, RECEIVED, WRITTEN, ANSWERED, SYNCED)
        self.check(UNSYNCED, RECEIVED, SYNCED, WRITTEN, ANSWERED)
        self.check(UNSYNCED, RECEIVED, WRITTEN, SYNC_BEGINS, ANSWERED, SYNC_ENDS)
        self.check(UNSYNCED, RECEIVED, SYNC_BEGINS, WRITTEN.replace("8 t", "7 t"), SYNC_ENDS, ANSWERED)
        self.check(UNSYNCED, RECEIVED, WRITTEN, SYNCED.replace("= 0", "= -1 EIO"), ANSWERED)
        self.check(UNSYNCED, RECEIVED, WRITTEN, SYNCED.replace("0.jnl", "1.jnl"), ANSWERED)
