"""A reader that does not read is closed with 4500; other readers never notice."""

import json
import threading
import time
import unittest

from wire.case import WireTest
from wire.raw import Closed, Stomp
from wire.server import mint, users

CONTENT = "x" * 3_900


class SlowReader(WireTest):
    def test_it_is_closed_and_the_others_continue(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        with (
            Stomp.connect(self.server, mint(bob), receive_buffer=4_096) as slow,
            Stomp.connect(self.server, mint(bob)) as quick,
            Stomp.connect(self.server, mint(alice)) as sender,
        ):
            slow.subscribe("/user/queue/messages")
            quick.subscribe("/user/queue/messages")
            before = self.server.resident_bytes()
            # The kernel takes some megabytes on loopback before the server's own 512 KiB begin to fill.
            count = 3_000
            heard = []

            def listen():
                for _ in range(count):
                    heard.append(quick.expect("MESSAGE").json()["content"])

            listener = threading.Thread(target=listen, daemon=True)
            listener.start()
            body = json.dumps({"content": CONTENT})
            for number in range(count):
                receipt = f"receipt:{number}\n" if number % 50 == 49 else ""
                sender.say(f"SEND\ndestination:/app/conversations/{conversation}/send\n{receipt}\n{body}\0")
                if receipt:
                    sender.expect("RECEIPT")
            listener.join(30)
            self.assertEqual(len(heard), count)
            self.assertLess(self.server.resident_bytes() - before, 24 * 1024 * 1024)
            # It finally reads the bytes in flight, and then the close, if the close could still be written.
            with self.assertRaises(Closed) as closed:
                while True:
                    slow.receive()
            self.assertIn(closed.exception.code, (4500, None))
            if closed.exception.code == 4500:
                self.assertEqual(closed.exception.reason, "Failed to send message within the configured send limit")

    def test_one_that_reads_again_in_time_loses_nothing(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        with Stomp.connect(self.server, mint(bob), receive_buffer=4_096) as slow, Stomp.connect(self.server, mint(alice)) as sender:
            slow.subscribe("/user/queue/messages")
            for number in range(100):
                body = json.dumps({"content": f"{number} {CONTENT}"[:3_900]})
                sender.say(f"SEND\ndestination:/app/conversations/{conversation}/send\nreceipt:{number}\n\n{body}\0")
                sender.expect("RECEIPT")
            numbers = [int(slow.expect("MESSAGE").json()["content"].split()[0]) for _ in range(100)]
            self.assertEqual(numbers, list(range(100)))


class BlockedWrite(WireTest):
    settings = {"limits.write_blocked": "1s", "limits.outbox_bytes": 64 * 1024 * 1024}

    def test_a_write_without_progress_is_the_end(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        with Stomp.connect(self.server, mint(bob), receive_buffer=4_096) as slow, Stomp.connect(self.server, mint(alice)) as sender:
            slow.subscribe("/user/queue/messages")
            body = json.dumps({"content": CONTENT})
            for number in range(2_000):
                receipt = f"receipt:{number}\n" if number % 50 == 49 else ""
                sender.say(f"SEND\ndestination:/app/conversations/{conversation}/send\n{receipt}\n{body}\0")
                if receipt:
                    sender.expect("RECEIPT")
            # The server's connections for the reader show the close from outside.
            deadline = time.monotonic() + 10
            while self.connections() > 1 and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(self.connections(), 1)

    def connections(self):
        """Established TCP connections of the server."""
        port = f":{self.server.port:04X}"
        with open("/proc/net/tcp", encoding="ascii") as table:
            rows = [line.split() for line in table][1:]
        return sum(row[1].endswith(port) and row[3] == "01" for row in rows)


if __name__ == "__main__":
    unittest.main()
