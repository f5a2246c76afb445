"""HTTP/1.1 as bad clients and careless proxies speak it (RFC 9112)."""

import json
import unittest

from wire.case import WireTest
from wire.raw import Http, Stomp, handshake, packet
from wire.server import mint, users


class HttpTest(WireTest):
    def open(self):
        connection = Http(self.server)
        self.addCleanup(connection.close)
        return connection

    def assert_refused(self, data, status, code=None):
        """These bytes are answered with this status, and the connection is closed: later bytes cannot be trusted."""
        connection = self.open()
        connection.try_send(data)
        response = connection.response()
        self.assertEqual(response.status, status, data[:200])
        self.assert_error_body(response, code)
        connection.at_end()

    def assert_error_body(self, response, code=None):
        self.assertTrue(response.headers["content-type"].startswith("application/json"), response.headers)
        body = response.json()
        self.assertEqual(set(body) & {"code", "message"}, {"code", "message"})
        self.assertTrue(body["message"])
        if code:
            self.assertEqual(body["code"], code)


class Framing(HttpTest):
    def setUp(self):
        (self.user,) = users(1)
        self.token = mint(self.user)

    def head(self, *headers, method="POST", path="/conversations"):
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {self.token}", *headers]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"

    def test_content_length_with_transfer_encoding(self):
        smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
        self.assert_refused(self.head("Content-Length: 5", "Transfer-Encoding: chunked") + smuggled, 400, "bad_request")
        self.assert_refused(self.head("Transfer-Encoding: chunked", "Content-Length: 5") + smuggled, 400, "bad_request")

    def test_two_content_lengths(self):
        for first, second in [("2", "3"), ("2", "2"), ("2, 3", "2"), ("2,2", "2")]:
            self.assert_refused(self.head(f"Content-Length: {first}", f"Content-Length: {second}") + b"{}", 400)

    def test_content_length_that_is_no_number(self):
        for value in ["-1", "+2", "0x2", "2 2", "two", "", "1e1", "18446744073709551616", "99999999999999999999999"]:
            connection = self.open()
            connection.try_send(self.head(f"Content-Length: {value}") + b"{}")
            self.assertIn(connection.response().status, (400, 413), value)
            connection.at_end()

    def test_a_body_over_the_limit(self):
        self.assert_refused(self.head(f"Content-Length: {128 * 1024 + 1}"), 413, "too_large")
        self.assert_refused(self.head("Content-Length: 1000000000000"), 413, "too_large")
        chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        self.assert_refused(self.head("Transfer-Encoding: chunked") + chunk * 3, 413, "too_large")

    def test_a_body_at_the_limit(self):
        connection = self.open()
        body = b'{"participants":[1]' + b" " * (128 * 1024 - 20) + b"}"
        self.assertEqual(len(body), 128 * 1024)
        connection.send(self.head(f"Content-Length: {len(body)}") + body)
        self.assertLess(connection.response().status, 300)

    def test_bad_chunks(self):
        for chunks in [
            b"zz\r\n{}\r\n0\r\n\r\n",
            b"-2\r\n{}\r\n0\r\n\r\n",
            b"2\r\n{}xx0\r\n\r\n",
            b"2\r\n{}\r\n\r\n\r\n",
            b"\r\n{}\r\n0\r\n\r\n",
            b"0x2\r\n{}\r\n0\r\n\r\n",
            b"2 \x00\r\n{}\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\n",
            b"fffffffffffffffffffff\r\n",
            b"0000000000000000000000000000000002\r\n{}\r\n0\r\n\r\n" + b"x" * 70000,
        ]:
            connection = self.open()
            connection.try_send(self.head("Transfer-Encoding: chunked") + chunks)
            self.assertIn(connection.response().status, (400, 413), chunks[:40])
            connection.at_end()

    def test_chunks_with_extensions_and_trailers(self):
        (other,) = users(1)
        body = json.dumps({"participants": [other]}).encode()
        connection = self.open()
        chunks = b"".join(b"1;name=value\r\n%c\r\n" % byte for byte in body) + b"0\r\nX-Trailer: ignored\r\n\r\n"
        connection.send(self.head("Transfer-Encoding: chunked") + chunks)
        self.assertEqual(connection.response().status, 201)
        self.assertEqual(connection.ask("GET", "/healthz").status, 200)

    def test_unknown_transfer_encodings(self):
        for value in ["gzip", "gzip, chunked", "chunked, gzip", "chunked, chunked", "xchunked"]:
            connection = self.open()
            connection.try_send(self.head(f"Transfer-Encoding: {value}") + b"0\r\n\r\n")
            self.assertIn(connection.response().status, (400, 501), value)
            connection.at_end()

    def test_too_long_a_request_line(self):
        self.assert_refused(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long")
        self.assert_refused(b"GET /" + b"x" * 1_000_000, 414, "uri_too_long")

    def test_too_many_headers_and_too_long_ones(self):
        self.assert_refused(self.head(*(f"X-{n}: 1" for n in range(70))), 431, "headers_too_large")
        self.assert_refused(self.head("X-Long: " + "y" * 17_000), 431, "headers_too_large")

    def test_a_megabyte_of_headers(self):
        self.assert_refused(self.head(*(f"X-{n}: {'z' * 100}" for n in range(10_000))), 431, "headers_too_large")
        self.assert_refused(self.head("X-Long: " + "y" * 1_000_000), 431, "headers_too_large")

    def test_a_megabyte_of_headers_that_never_ends_takes_no_memory(self):
        before = self.server.resident_bytes()
        connection = self.open()
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: ")
        for _ in range(200):
            if not connection.try_send(b"y" * 65536):
                break
        self.assertLess(self.server.resident_bytes() - before, 8 * 1024 * 1024)

    def test_garbage(self):
        for data in [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100),
            b"\x00" * 1000,
            b"\r\n" * 100_000,
            b"GET\r\n\r\n",
            b"GET /\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\n: empty name\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\r\n folded\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: \x00\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
            b"G\xc3\xa9T / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET relative HTTP/1.1\r\nHost: x\r\n\r\n",
        ]:
            connection = self.open()
            connection.try_send(data)
            connection.socket.shutdown(1)
            answer = connection.at_end()
            self.assertTrue(not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 404", b"HTTP/1.1 401", b"HTTP/1.1 505")), answer[:100])
        self.assertEqual(self.open().ask("GET", "/healthz").status, 200)

    def test_exactly_one_host_is_required(self):
        self.assert_refused(b"GET /healthz HTTP/1.1\r\n\r\n", 400)
        self.assert_refused(b"GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400)


class Connections(HttpTest):
    def test_keep_alive(self):
        connection = self.open()
        for _ in range(50):
            self.assertEqual(connection.ask("GET", "/healthz").status, 200)

    def test_connection_close_is_honoured(self):
        connection = self.open()
        response = connection.ask("GET", "/healthz", ["Connection: close"])
        self.assertEqual(response.headers["connection"].lower(), "close")
        self.assertEqual(connection.at_end(), b"")

    def test_http_1_0(self):
        connection = self.open()
        connection.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        self.assertEqual(connection.response().status, 200)
        self.assertEqual(connection.at_end(), b"")
        connection = self.open()
        for _ in range(2):
            connection.send(b"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            self.assertEqual(connection.response().status, 200)

    def test_pipelined_answers_leave_in_order(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        token, route = mint(alice), f"/conversations/{conversation}/messages"
        connection = self.open()
        count = 60
        for number in range(count):
            if number % 3 == 0:
                # A write, which waits for the store, between immediate answers.
                body = json.dumps({"content": f"message {number}"}).encode()
                connection.request("POST", route, [f"Authorization: Bearer {token}", "Content-Type: application/json"], body)
            elif number % 3 == 1:
                connection.request("GET", "/healthz")
            else:
                connection.request("GET", "/conversations")
        for number in range(count):
            response = connection.response()
            self.assertEqual(response.status, [201, 200, 401][number % 3], number)
            if number % 3 == 0:
                self.assertEqual(response.json()["content"], f"message {number}")
        contents = [message["content"] for message in self.server.history(bob, conversation)]
        self.assertEqual(contents, [f"message {number}" for number in range(0, count, 3)])

    def test_one_byte_at_a_time(self):
        connection = self.open()
        alice, bob = users(2)
        body = json.dumps({"participants": [bob]})
        text = (
            f"POST /conversations HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {mint(alice)}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        )
        for byte in text.encode():
            connection.send(bytes([byte]))
        self.assertEqual(connection.response().status, 201)

    def test_head_has_the_headers_of_get_and_no_body(self):
        connection = self.open()
        get = connection.ask("GET", "/healthz")
        head = connection.ask("HEAD", "/healthz")
        self.assertEqual((head.status, head.body), (get.status, b""))
        self.assertEqual(head.headers["content-length"], get.headers["content-length"])
        self.assertEqual(connection.ask("GET", "/healthz").body, get.body)

    def test_expect_100_continue(self):
        (alice, bob) = users(2)
        body = json.dumps({"participants": [bob]}).encode()
        connection = self.open()
        headers = ["Expect: 100-continue", f"Authorization: Bearer {mint(alice)}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        connection.request("POST", "/conversations", headers)
        self.assertEqual(connection.response().status, 100)
        connection.send(body)
        self.assertEqual(connection.response().status, 201)

    def test_an_unknown_expectation(self):
        connection = self.open()
        connection.request("POST", "/auth/otp", ["Expect: a-miracle", "Content-Length: 2"])
        self.assertEqual(connection.response().status, 417)

    def test_expect_with_a_body_too_large_is_refused_before_the_body(self):
        connection = self.open()
        connection.request("POST", "/auth/otp", ["Expect: 100-continue", "Content-Length: 10000000"])
        self.assertEqual(connection.response().status, 413)


class Routes(HttpTest):
    def test_a_wrong_method_gets_the_allowed_ones(self):
        connection = self.open()
        (user,) = users(1)
        bearer = [f"Authorization: Bearer {mint(user)}"]
        for method, path, allowed in [
            ("POST", "/healthz", {"GET", "HEAD"}),
            ("DELETE", "/readyz", {"GET", "HEAD"}),
            ("GET", "/auth/login", {"POST"}),
            ("GET", "/auth/otp", {"POST"}),
            ("DELETE", "/conversations", {"GET", "HEAD", "POST"}),
            ("PATCH", "/conversations/1/messages", {"GET", "HEAD", "POST"}),
            ("POST", "/users/me", {"GET", "HEAD"}),
            ("BREW", "/users/me", {"GET", "HEAD"}),
        ]:
            response = connection.ask(method, path, bearer)
            self.assertEqual(response.status, 405, f"{method} {path}")
            offered = {name.strip() for name in response.headers["allow"].split(",")}
            self.assertLessEqual(allowed, offered, f"{method} {path}")
            self.assertNotIn(method, offered)
            self.assert_error_body(response, "method_not_allowed")

    def test_bodies_other_than_json(self):
        connection = self.open()
        (user,) = users(1)
        bearer = [f"Authorization: Bearer {mint(user)}", "Content-Type: application/json"]
        for body in [b"{", b"[1,2", b"{}{}", b"nul", b'{"participants":[1]', b"\xff\xfe", b'"text"', b"7", b'{"a":"\xff"}', b"[" * 100_000, b'{"a":' * 20_000]:
            response = connection.ask("POST", "/conversations", bearer, body)
            self.assertEqual(response.status, 400, body[:40])
            self.assert_error_body(response)

    def test_another_content_type(self):
        (alice, bob) = users(2)
        conversation = self.server.conversation(alice, bob)
        connection = self.open()
        for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]:
            response = connection.ask(
                "POST", f"/conversations/{conversation}/messages",
                [f"Authorization: Bearer {mint(alice)}", f"Content-Type: {content_type}"], b'{"content":"x"}',
            )
            self.assertEqual(response.status, 415, content_type)

    def test_tricks_with_the_path(self):
        connection = self.open()
        for path in ["/auth/../users/me", "/ws/../users/me", "/healthz/../users/me", "//users/me", "/users//me", "/users/%6de", "/auth/login/../../users/me", "/healthz%2f..%2fusers%2fme", "/USERS/ME"]:
            response = connection.ask("GET", path)
            self.assertIn(response.status, (400, 401, 404), path)

    def test_security_headers_of_an_answer(self):
        response = self.open().ask("GET", "/healthz")
        self.assertIn("date", response.headers)


class Upgrades(HttpTest):
    def setUp(self):
        (user,) = users(1)
        self.token = mint(user)

    def upgrade(self, path=None, headers=(), **options):
        connection = self.open()
        connection.send(handshake(path or f"/ws?token={self.token}", headers, **options))
        return connection.response()

    def test_the_accept_key_of_the_standard(self):
        response = self.upgrade(key="dGhlIHNhbXBsZSBub25jZQ==")  # RFC 6455 section 1.3
        self.assertEqual(response.status, 101)
        self.assertEqual(response.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertEqual(response.headers["upgrade"].lower(), "websocket")
        self.assertEqual(response.headers["connection"].lower(), "upgrade")
        self.assertNotIn("sec-websocket-protocol", response.headers)
        self.assertNotIn("sec-websocket-extensions", response.headers)

    def test_on_other_urls(self):
        (user,) = users(1)
        bearer = [f"Authorization: Bearer {mint(user)}"]
        for path in ["/", "/healthz", "/users/me", "/conversations", "/conversations/1/messages", "/auth/login", "/api/ws", "/wss", "/no/such"]:
            response = self.upgrade(path, bearer)
            self.assertNotEqual(response.status, 101, path)
            self.assertLess(response.status, 500, path)

    def test_without_upgrade_is_no_handshake(self):
        for path in ["/ws", "/ws/"]:
            self.assertEqual(self.open().ask("GET", path).status, 200, "the greeting of SockJS")
        response = self.open().ask("GET", "/ws/websocket")
        self.assertEqual(response.status, 426)
        self.assertEqual(response.headers["upgrade"].lower(), "websocket")
        self.assertEqual(response.headers["sec-websocket-version"], "13")

    def test_a_wrong_version(self):
        for version in ["8", "12", "14", "0", "", "13, 8", "x"]:
            response = self.upgrade(version=version)
            self.assertEqual(response.status, 426, version)
            self.assertEqual(response.headers["upgrade"].lower(), "websocket")
            self.assertEqual(response.headers["sec-websocket-version"], "13")
            self.assertIn("upgrade", response.headers["connection"].lower())

    def test_a_bad_key(self):
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZTEyMzQ=", "!" * 24]:
            self.assertEqual(self.upgrade(key=key).status, 400, key)

    def test_two_keys(self):
        self.assertEqual(self.upgrade(headers=["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]).status, 400)

    def test_another_method(self):
        connection = self.open()
        data = handshake(f"/ws?token={self.token}").replace(b"GET ", b"POST ", 1)
        connection.send(data)
        self.assertIn(connection.response().status, (400, 405))

    def test_a_subprotocol_that_is_not_ascii(self):
        for name in ["v12.stömp", "\U0001f389", "a b", "a,,b", ""]:
            response = self.upgrade(headers=[f"Sec-WebSocket-Protocol: {name}"])
            self.assertIn(response.status, (101, 400), name)
            self.assertNotIn("sec-websocket-protocol", response.headers, name)

    def test_data_after_the_handshake_is_not_lost(self):
        session = Stomp(self.server)
        self.addCleanup(session.close)
        connect = packet(1, b"CONNECT\naccept-version:1.2\nhost:x\n\n\0")
        beat = packet(1, b"SEND\ndestination:/app/heartbeat\nreceipt:early\n\n\0")
        session.send(handshake(f"/ws?token={self.token}") + connect + beat)
        self.assertEqual(session.response().status, 101)
        session.expect("CONNECTED")
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "early")

    def test_a_handshake_after_other_requests(self):
        connection = self.open()
        connection.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 3 + handshake(f"/ws?token={self.token}"))
        self.assertEqual([connection.response().status for _ in range(4)], [200, 200, 200, 101])


class Idle(HttpTest):
    settings = {"limits.http_idle": "1s"}

    def test_an_idle_connection_is_closed(self):
        connection = self.open()
        self.assertEqual(connection.ask("GET", "/healthz").status, 200)
        self.assertEqual(connection.at_end(), b"")

    def test_half_a_request_is_answered_408(self):
        connection = self.open()
        connection.send(b"GET /healthz HTTP/1.1\r\nHost:")
        self.assertEqual(connection.response().status, 408)
        connection.at_end()

    def test_one_byte_per_second_does_not_hold_it_open(self):
        connection = self.open()
        connection.socket.settimeout(0.5)
        try:
            for byte in b"GET /healthz HTTP/1.1\r\nHost: x\r\n":
                connection.send(bytes([byte]))
                try:
                    if not connection.fill():
                        break
                except TimeoutError:
                    continue
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            self.assertTrue(connection.buffer.startswith(b"HTTP/1.1 408"), connection.buffer)


if __name__ == "__main__":
    unittest.main()
