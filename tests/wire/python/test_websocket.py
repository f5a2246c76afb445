"""WebSocket (RFC 6455) as broken and hostile clients speak it."""

import struct
import unittest

from wire.case import WireTest
from wire.raw import BINARY, CLOSE, PING, PONG, TEXT, Closed, Stomp, WebSocket, packet
from wire.server import mint, users

CONNECT = b"CONNECT\naccept-version:1.2\nhost:x\n\n\0"
CONTINUATION = 0


class WebSocketTest(WireTest):
    def open(self):
        """An upgraded connection before its first STOMP frame."""
        (user,) = users(1)
        connection = WebSocket.open(self.server, mint(user))
        self.addCleanup(connection.close)
        return connection

    def connect(self):
        """A STOMP session."""
        (user,) = users(1)
        session = Stomp.connect(self.server, mint(user))
        self.addCleanup(session.close)
        return session

    def assert_alive(self, session, receipt="alive"):
        session.say(f"SEND\ndestination:/app/heartbeat\nreceipt:{receipt}\n\n\0")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], receipt)

    def assert_closed(self, data, code, before=b""):
        """After these bytes the server closes with `code`."""
        session = self.connect()
        session.try_send(before + data)
        with self.assertRaises(Closed, msg=data[:40]) as closed:
            while True:
                session.receive()
        self.assertEqual(closed.exception.code, code, data[:40])


class Framing(WebSocketTest):
    def test_an_unmasked_packet(self):
        self.assert_closed(packet(TEXT, b"\n", masked=False), 1002)
        self.assert_closed(packet(PING, b"", masked=False), 1002)

    def test_reserved_bits(self):
        for reserved in (1, 2, 4, 7):
            self.assert_closed(packet(TEXT, b"\n", reserved=reserved), 1002)

    def test_reserved_opcodes(self):
        for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
            self.assert_closed(packet(opcode, b"\n"), 1002)

    def test_fragmented_control_packets(self):
        for opcode in (PING, PONG, CLOSE):
            self.assert_closed(packet(opcode, b"", fin=False), 1002)

    def test_oversize_control_packets(self):
        for opcode in (PING, PONG):
            self.assert_closed(packet(opcode, b"x" * 126), 1002)
        self.assert_closed(packet(CLOSE, struct.pack(">H", 1000) + b"x" * 124), 1002)
        session = self.connect()
        session.send(packet(PING, b"x" * 125))
        self.assertEqual(session.receive(), (PONG, b"x" * 125))

    def test_a_continuation_of_nothing(self):
        self.assert_closed(packet(CONTINUATION, b"\n"), 1002)
        self.assert_closed(packet(CONTINUATION, b"\n", fin=False), 1002)

    def test_a_message_within_a_message(self):
        self.assert_closed(packet(TEXT, b"\n", fin=False) + packet(TEXT, b"\n"), 1002)

    def test_lengths_not_in_their_shortest_form(self):
        key = b"\0\0\0\0"
        self.assert_closed(b"\x81\xfe\x00\x01" + key + b"\n", 1002)
        self.assert_closed(b"\x81\xff" + struct.pack(">Q", 1) + key + b"\n", 1002)

    def test_a_length_with_its_highest_bit_set(self):
        session = self.connect()
        session.try_send(b"\x81\xff" + struct.pack(">Q", 1 << 63) + b"\0\0\0\0")
        self.assertIn(session.closed(), (1002, 1009))

    def test_a_huge_length_takes_no_memory(self):
        before = self.server.resident_bytes()
        for size in (1 << 32, (1 << 63) - 1, 1 << 24):
            session = self.connect()
            session.try_send(packet(BINARY, b"", length=size))
            error = None
            try:
                while True:
                    session.receive()
            except Closed as closed:
                error = closed
            self.assertEqual(error.code, 1009, size)
        self.assertLess(self.server.resident_bytes() - before, 8 * 1024 * 1024)

    def test_control_packets_between_fragments(self):
        session = self.connect()
        frame = b"SEND\ndestination:/app/heartbeat\nreceipt:between\n\n\0"
        session.send(packet(TEXT, frame[:10], fin=False) + packet(PING, b"now") + packet(CONTINUATION, frame[10:]))
        self.assertEqual(session.receive(), (PONG, b"now"))
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "between")

    def test_one_byte_per_segment(self):
        (user,) = users(1)
        session = Stomp.open(self.server, mint(user))
        self.addCleanup(session.close)
        for byte in packet(TEXT, CONNECT) + packet(TEXT, b"SEND\ndestination:/app/heartbeat\nreceipt:slow\n\n\0"):
            session.send(bytes([byte]))
        session.expect("CONNECTED")
        session.expect("RECEIPT")

    def test_one_byte_per_fragment(self):
        session = self.connect()
        frame = b"SEND\ndestination:/app/heartbeat\nreceipt:crumbs\n\n\0"
        for at, byte in enumerate(frame):
            session.send(packet(CONTINUATION if at else TEXT, bytes([byte]), fin=at == len(frame) - 1))
        session.expect("RECEIPT")


class Text(WebSocketTest):
    def test_text_that_is_not_utf_8(self):
        for data in [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"SEND\nx:\xc3\x28\n\n\0", b"\xe2\x82"]:
            self.assert_closed(packet(TEXT, data), 1007)

    def test_a_character_cut_by_a_fragment(self):
        session = self.connect()
        frame = "SEND\ndestination:/app/heartbeat\nx:é🎉\nreceipt:cut\n\n\0".encode()
        for at, byte in enumerate(frame):
            session.send(packet(CONTINUATION if at else TEXT, bytes([byte]), fin=at == len(frame) - 1))
        session.expect("RECEIPT")
        self.assert_closed(packet(TEXT, b"\xc3", fin=False) + packet(CONTINUATION, b"\n"), 1007)
        self.assert_closed(packet(TEXT, b"\xc3", fin=False) + packet(CONTINUATION, b""), 1007)


class Closing(WebSocketTest):
    def test_a_close_is_answered_with_its_code(self):
        for code in (1000, 1001, 3000, 4999):
            session = self.connect()
            session.send(packet(CLOSE, struct.pack(">H", code) + b"bye"))
            self.assertEqual(session.closed(), code)
        session = self.connect()
        session.send(packet(CLOSE))
        self.assertIn(session.closed(), (1000, 1005))

    def test_bad_close_codes(self):
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535):
            self.assert_closed(packet(CLOSE, struct.pack(">H", code)), 1002)

    def test_a_close_of_one_byte(self):
        self.assert_closed(packet(CLOSE, b"\x03"), 1002)

    def test_a_close_reason_that_is_not_utf_8(self):
        session = self.connect()
        session.send(packet(CLOSE, struct.pack(">H", 1000) + b"\xff"))
        self.assertIn(session.closed(), (1002, 1007))

    def test_bytes_after_a_close_are_ignored(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        session = Stomp.connect(self.server, mint(alice))
        self.addCleanup(session.close)
        late = f'SEND\ndestination:/app/conversations/{conversation}/send\n\n{{"content":"late"}}\0'.encode()
        session.send(packet(CLOSE, struct.pack(">H", 1000)) + packet(TEXT, late))
        self.assertEqual(session.closed(), 1000)
        self.assertEqual(self.server.history(alice, conversation), [])


class Floods(WebSocketTest):
    def test_empty_fragments_without_end(self):
        session = self.connect()
        before = self.server.resident_bytes()
        flood = packet(CONTINUATION, b"", fin=False) * 10_000
        session.try_send(packet(TEXT, b"", fin=False))
        for _ in range(100):
            if not session.try_send(flood):
                break
        self.assertIn(session.closed(), (1009, 1008, None))
        self.assertLess(self.server.resident_bytes() - before, 8 * 1024 * 1024)
        self.assert_alive(self.connect())

    def test_empty_messages_without_end_cost_nothing(self):
        session = self.connect()
        for _ in range(20):
            session.send(packet(TEXT, b"") * 5_000)
        self.assert_alive(session)

    def test_a_ping_flood_with_unread_pongs(self):
        session = self.connect()
        other = self.connect()
        before = self.server.resident_bytes()
        flood = packet(PING, b"x" * 125) * 1_000
        session.socket.settimeout(2)
        try:
            for _ in range(200):
                session.send(flood)
        except (OSError, TimeoutError):
            pass
        # Whether the server pauses reading or closes, its memory is bounded and the others continue.
        self.assertLess(self.server.resident_bytes() - before, 8 * 1024 * 1024)
        self.assert_alive(other)

    def test_heart_beats_without_end(self):
        session = self.connect()
        for _ in range(20):
            session.send(packet(TEXT, b"\n" * 60_000))
        self.assert_alive(session)

    def test_many_connections_that_sent_half_a_frame(self):
        before = self.server.resident_bytes()
        held = []
        for _ in range(200):
            connection = self.open()
            connection.send(packet(TEXT, CONNECT[:14]))
            held.append(connection)
        self.assertLess((self.server.resident_bytes() - before) / len(held), 16 * 1024)
        self.assert_alive(self.connect())


class FirstFrame(WebSocketTest):
    settings = {"limits.first_frame": "1s"}

    def test_no_first_frame_in_time(self):
        connection = self.open()
        with self.assertRaises(Closed) as closed:
            while True:
                connection.receive()
        self.assertEqual(closed.exception.code, 4409)

    def test_half_a_first_frame_in_time_is_not_enough(self):
        connection = self.open()
        connection.send(packet(TEXT, CONNECT[:20]))
        with self.assertRaises(Closed) as closed:
            while True:
                connection.receive()
        self.assertEqual(closed.exception.code, 4409)

    def test_pings_and_heart_beats_are_no_frame(self):
        connection = self.open()
        connection.send(packet(PING) + packet(TEXT, b"\n\n"))
        with self.assertRaises(Closed) as closed:
            while True:
                connection.receive()
        self.assertEqual(closed.exception.code, 4409)

    def test_a_session_that_began_in_time_stays(self):
        idle = self.open()
        session = self.connect()
        with self.assertRaises(Closed):
            while True:
                idle.receive()
        self.assert_alive(session)


class Ping(WebSocketTest):
    settings = {"limits.ping": "1s"}

    def test_the_server_pings(self):
        session = self.connect()
        for _ in range(2):
            opcode, payload = session.receive()
            self.assertEqual(opcode, PING)
            session.send(packet(PONG, payload))


if __name__ == "__main__":
    unittest.main()
