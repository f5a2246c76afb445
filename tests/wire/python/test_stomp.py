"""STOMP as broken and hostile clients speak it: a clear ERROR, the close that goes with it, and nothing else."""

import unittest

from wire.case import WireTest
from wire.raw import BINARY, TEXT, Stomp, packet
from wire.server import mint, users

CONNECT = "CONNECT\naccept-version:{}\nhost:x\n\n\0"


class StompTest(WireTest):
    def setUp(self):
        self.alice, self.bob = users(2)
        self.token = mint(self.alice)

    def open(self):
        session = Stomp.open(self.server, self.token)
        self.addCleanup(session.close)
        return session

    def connect(self, version="1.2"):
        session = Stomp.connect(self.server, self.token, f"accept-version:{version}\nhost:x\n")
        self.addCleanup(session.close)
        return session

    def assert_error(self, data, code=None, opcode=TEXT, version="1.2"):
        """These bytes are answered with an ERROR that has a message, and a close."""
        session = self.connect(version)
        session.say(data, opcode)
        error, closed = session.error()
        self.assertTrue(error.headers["message"], data[:80])
        self.assertNotIn("panic", error.headers["message"])
        if code:
            self.assertEqual(closed, code, data[:80])
        return error

    def assert_alive(self, session):
        session.say("SEND\ndestination:/app/heartbeat\nreceipt:alive\n\n\0")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "alive")


class Beginning(StompTest):
    def test_a_frame_before_connect(self):
        for frame in ["SEND\ndestination:/app/send\n\n{}\0", "DISCONNECT\nreceipt:1\n\n\0", "BEGIN\ntransaction:1\n\n\0"]:
            session = self.open()
            session.say(frame)
            session.error()

    def test_a_second_connect(self):
        self.assert_error(CONNECT.format("1.2"))
        self.assert_error("STOMP\naccept-version:1.2\nhost:x\n\n\0")

    def test_garbage_instead_of_connect(self):
        for garbage in ["hello", "GET / HTTP/1.1\r\n\r\n", "\0", "{}\0", "connect\n\n\0", "CONNECTED\nversion:1.2\n\n\0", "MESSAGE\n\n\0"]:
            session = self.open()
            session.say(garbage)
            session.say("\0")
            session.error()

    def test_server_frames_from_a_client(self):
        for command in ["CONNECTED", "MESSAGE", "RECEIPT", "ERROR"]:
            self.assert_error(f"{command}\nreceipt-id:1\n\n\0")

    def test_unknown_commands(self):
        for command in ["SENT", "send", "SEND ", " SEND", "S", "SUBSCRIBE\x00", "SENDSENDSENDSENDSENDSENDSEND", "É"]:
            self.assert_error(f"{command}\ndestination:/app/heartbeat\n\n\0")

    def test_bad_heart_beat_headers(self):
        for value in ["x", "1", "1,2,3", "-1,0", "1,", "1.5,0", "99999999999999999999,0", " , "]:
            session = self.open()
            session.say(f"CONNECT\naccept-version:1.2\nhost:x\nheart-beat:{value}\n\n\0")
            session.error()


class Framing(StompTest):
    def test_one_byte_per_message(self):
        session = self.open()
        for byte in CONNECT.format("1.2").encode() + b"SEND\ndestination:/app/heartbeat\nreceipt:slow\n\n\0":
            session.send(packet(TEXT, bytes([byte])))
        session.expect("CONNECTED")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "slow")

    def test_both_line_ends(self):
        session = self.connect()
        session.say("\r\n\n\r\nSEND\r\ndestination:/app/heartbeat\r\nreceipt:crlf\r\n\r\n\0\r\n\n")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "crlf")
        session.say("SEND\ndestination:/app/heartbeat\r\nreceipt:mixed\n\r\n\0")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "mixed")

    def test_no_nul_is_no_frame(self):
        session = self.connect()
        session.say("SEND\ndestination:/app/heartbeat\nreceipt:late\n\n")
        session.send(packet(TEXT, b"\0"))
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "late")

    def test_no_nul_ever(self):
        session = self.connect()
        session.say("SEND\ndestination:/app/send\n\n")
        for _ in range(20):
            if not session.try_send(packet(TEXT, b"x" * 16_384)):
                break
        _, code = session.error()
        self.assertEqual(code, 1009)

    def test_content_lengths_that_are_no_number(self):
        for value in ["-1", "+1", "x", "", "1.0", "0x1", " 1", "1 ", "1e2", "١"]:
            self.assert_error(f"SEND\ndestination:/app/heartbeat\ncontent-length:{value}\n\nx\0")

    def test_huge_content_lengths(self):
        before = self.server.resident_bytes()
        for value in ["65537", "2147483648", "4294967296", "9223372036854775808", "18446744073709551615", "18446744073709551616", "9" * 40]:
            self.assert_error(f"SEND\ndestination:/app/heartbeat\ncontent-length:{value}\n\n", 1009 if len(value) < 20 else None)
        self.assertLess(self.server.resident_bytes() - before, 8 * 1024 * 1024)

    def test_a_content_length_that_is_too_short(self):
        self.assert_error("SEND\ndestination:/app/heartbeat\ncontent-length:2\n\nxyz\0")

    def test_a_content_length_that_is_too_long_takes_the_next_frame_in(self):
        session = self.connect()
        session.say("SEND\ndestination:/app/heartbeat\ncontent-length:5\nreceipt:whole\n\nab\0cd\0")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "whole")

    def test_forbidden_bodies(self):
        for frame in ["SUBSCRIBE\nid:1\ndestination:/topic/x\n\nbody\0", "BEGIN\ntransaction:1\n\nbody\0", "DISCONNECT\n\nbody\0"]:
            self.assert_error(frame)

    def test_truncation_at_every_byte_is_no_crash(self):
        frame = b"SEND\ndestination:/app/conversations/1/send\nx-a:b\\nc\ncontent-length:15\n\n" + b'{"content":"x"}' + b"\0"
        for end in range(0, len(frame), 3):
            session = self.connect()
            session.send(packet(TEXT, frame[:end]))
            session.close()
        self.assert_alive(self.connect())

    def test_several_frames_in_one_message(self):
        session = self.connect()
        session.say("".join(f"SEND\ndestination:/app/heartbeat\nreceipt:{n}\n\n\0\n" for n in range(100)))
        for number in range(100):
            self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], str(number))

    def test_binary_messages_that_are_not_utf_8_in_the_head(self):
        self.assert_error(b"SEND\ndestination:/app/heartbeat\nx:\xff\n\n\0", opcode=BINARY)
        self.assert_error(b"S\xc3ND\n\n\0", opcode=BINARY)


class Headers(StompTest):
    def test_ten_thousand_headers(self):
        self.assert_error("SEND\ndestination:/app/heartbeat\n" + "".join(f"h{n}:v\n" for n in range(10_000)) + "\n\0", 1009)

    def test_headers_at_and_over_their_number(self):
        def frame(count):
            return "SEND\ndestination:/app/heartbeat\nreceipt:many\n" + "".join(f"h{n}:v\n" for n in range(count - 2)) + "\n\0"

        session = self.connect()
        session.say(frame(64))
        session.expect("RECEIPT")
        self.assert_error(frame(65), 1009)

    def test_a_header_at_and_over_its_length(self):
        def frame(length):
            # A heart-beat passes nothing on, so only the length of a line is limited.
            return f"SEND\ndestination:/app/heartbeat\nreceipt:long\nx:{'y' * (length - 2)}\n\n\0"

        session = self.connect()
        session.say(frame(8 * 1024))
        session.expect("RECEIPT")
        self.assert_error(frame(8 * 1024 + 1), 1009)

    def test_a_header_of_a_megabyte(self):
        session = self.connect()
        session.say("SEND\ndestination:/app/heartbeat\nx:")
        for _ in range(16):
            if not session.try_send(packet(TEXT, b"y" * 65_536)):
                break
        _, code = session.error()
        self.assertEqual(code, 1009)

    def test_undefined_escapes(self):
        for escape in ["\\t", "\\a", "\\0", "\\", "\\x41", "\\N", "\\ "]:
            self.assert_error(f"SEND\ndestination:/app/heartbeat\nx:a{escape}\n\n\0")
        self.assert_error("SEND\ndestination:/app/heartbeat\nx:a\\rb\n\n\0", version="1.1")
        session = self.connect("1.1")
        session.say("SEND\ndestination:/app/heartbeat\nreceipt:a\\c\\n\\\\b\n\n\0")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "a\\c\\n\\\\b")

    def test_1_0_has_no_escapes(self):
        session = self.connect("1.0")
        session.say("SEND\ndestination:/app/heartbeat\nreceipt:a\\tb\\\n\n\0")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "a\\tb\\")

    def test_malformed_header_lines(self):
        for line in ["no colon", ":no name", ":", "a\rb:c", "a:b\rc"]:
            self.assert_error(f"SEND\ndestination:/app/heartbeat\n{line}\n\n\0")

    def test_required_headers(self):
        for frame in [
            "SEND\n\n\0",
            "SUBSCRIBE\nid:1\n\n\0",
            "SUBSCRIBE\ndestination:/topic/x\n\n\0",
            "UNSUBSCRIBE\n\n\0",
            "ACK\n\n\0",
            "NACK\n\n\0",
            "BEGIN\n\n\0",
            "COMMIT\n\n\0",
            "ABORT\n\n\0",
        ]:
            self.assert_error(frame)

    def test_an_unknown_ack_mode(self):
        self.assert_error("SUBSCRIBE\nid:1\ndestination:/topic/x\nack:never\n\n\0")

    def test_errors_name_the_requested_receipt(self):
        error = self.assert_error(f"SUBSCRIBE\nid:1\ndestination:/user/{self.bob}/queue/messages\nreceipt:mine\n\n\0", 1008)
        self.assertEqual(error.headers["receipt-id"], "mine")

    def test_a_receipt_cannot_inject_a_header(self):
        session = self.connect()
        session.say("SEND\ndestination:/app/heartbeat\nreceipt:a\\nuser-name\\croot\n\n\0")
        receipt = session.expect("RECEIPT")
        self.assertEqual(receipt.headers["receipt-id"], "a\\nuser-name\\croot")
        self.assertNotIn("user-name", receipt.headers)


class Transactions(StompTest):
    def test_more_open_transactions_than_allowed(self):
        session = self.connect()
        for number in range(8):
            session.say(f"BEGIN\ntransaction:{number}\n\n\0")
        self.assert_alive(session)
        session.say("BEGIN\ntransaction:8\n\n\0")
        session.error()

    def test_more_frames_in_a_transaction_than_allowed(self):
        session = self.connect()
        session.say("BEGIN\ntransaction:t\n\n\0")
        for _ in range(64):
            session.say("SEND\ntransaction:t\ndestination:/app/heartbeat\n\n\0")
        self.assert_alive(session)
        session.say("SEND\ntransaction:t\ndestination:/app/heartbeat\n\n\0")
        session.error()


class Sessions(StompTest):
    settings = {"limits.sessions_per_user": 5}

    def test_more_sessions_of_a_user_than_allowed(self):
        held = [self.connect() for _ in range(5)]
        session = self.open()
        session.say(CONNECT.format("1.2"))
        _, code = session.error()
        self.assertEqual(code, 1008)
        for other in held:
            self.assert_alive(other)
        held[0].say("DISCONNECT\nreceipt:bye\n\n\0")
        held[0].expect("RECEIPT")
        self.assertEqual(held[0].closed(), 1000)
        self.assert_alive(self.connect())


if __name__ == "__main__":
    unittest.main()
