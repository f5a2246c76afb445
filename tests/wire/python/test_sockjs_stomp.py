"""STOMP over SockJS under `/ws`: the owner of a session, its end, and the pages that may use it."""

import json
import socket
import struct
import threading
import time
import unittest
import uuid

from wire import raw, sockjs
from wire.case import WireTest
from wire.raw import Closed, Http
from wire.server import mint, users
from wire.sockjs import FORM, HTTP_TRANSPORTS, RECEIVE, STREAMING, TRANSPORTS, Session, Stomp

ALIVE = "SEND\ndestination:/app/heartbeat\nreceipt:alive\n\n\0"
STILL_OPEN = 'c[2010,"Another connection still open"]'


class SockJsTest(WireTest):
    def ask(self, method, path, headers=(), body=b""):
        """One request on a connection of its own."""
        with Http(self.server) as connection:
            return connection.ask(method, path, headers, body)

    def connect(self, user, transport="xhr", **options):
        """A STOMP session, with its token in the URL."""
        session = Stomp.connect(self.server, mint(user), transport, **options)
        self.addCleanup(session.close)
        return session

    def assert_alive(self, session):
        session.say(ALIVE)
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "alive")

    def assert_gone(self, session, within):
        """The session is gone within so many seconds; returns how long that took."""
        began = time.monotonic()
        while (status := session.post("[]").status) != 404:
            self.assertEqual(status, 204)
            self.assertLess(time.monotonic() - began, within)
            time.sleep(0.02)
        return time.monotonic() - began

    def assert_closes(self, session, code, reason=None):
        """The session's next message is its close."""
        with self.assertRaises(Closed) as closed:
            session.message()
        self.assertEqual(closed.exception.code, code)
        if reason is not None:
            self.assertEqual(closed.exception.reason, reason)


class Transports(SockJsTest):
    def test_messages_both_ways(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                alice, bob = users(2)
                conversation = self.server.conversation(alice, bob)
                session = self.connect(bob, transport)
                session.subscribe("/user/queue/messages")
                self.assertEqual(session.connected.headers["user-name"], str(bob))
                text = "é🎉\u2028\u2029 \u200b 'quoted' \"twice\" \\ back 100 % %0A"
                stored = self.server.post(alice, conversation, text)
                self.assertEqual(session.expect("MESSAGE").json(), stored)
                body = json.dumps({"content": text})
                session.say(f"SEND\ndestination:/app/conversations/{conversation}/send\nreceipt:r\n\n{body}\0")
                self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "r")
                self.assertEqual([message["content"] for message in self.server.history(alice, conversation)], [text] * 2)

    def test_a_token_in_connect(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                (user,) = users(1)
                session = Stomp(self.server, "/ws", transport).open()
                self.addCleanup(session.close)
                session.say(f"CONNECT\naccept-version:1.2\nhost:x\nAuthorization:Bearer {mint(user)}\n\n\0")
                self.assertEqual(session.expect("CONNECTED").headers["user-name"], str(user))
                self.assert_alive(session)

    def test_two_tokens_of_different_users(self):
        alice, bob = users(2)
        session = Stomp(self.server, "/ws", "xhr_streaming", mint(alice)).open()
        self.addCleanup(session.close)
        session.say(f"CONNECT\naccept-version:1.2\nhost:x\nAuthorization:Bearer {mint(bob)}\n\n\0")
        session.expect("ERROR")
        self.assert_closes(session, 1008)

    def test_all_transports_of_a_user_receive(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        sessions = [self.connect(bob, transport) for transport in TRANSPORTS]
        for session in sessions:
            session.subscribe("/user/queue/messages")
        stored = [self.server.post(alice, conversation, f"number {number}") for number in range(20)]
        for session in sessions:
            self.assertEqual([session.expect("MESSAGE").json() for _ in stored], stored, session.transport)

    def test_another_users_queue_is_refused(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                alice, bob = users(2)
                session = self.connect(alice, transport)
                session.say(f"SUBSCRIBE\nid:0\ndestination:/user/{bob}/queue/messages\n\n\0")
                session.expect("ERROR")
                with self.assertRaises(Closed):
                    session.message()

    def test_nothing_is_lost_between_polls(self):
        for transport in sockjs.POLLING:
            with self.subTest(transport):
                alice, bob = users(2)
                conversation = self.server.conversation(alice, bob)
                session = self.connect(bob, transport)
                session.subscribe("/user/queue/messages")
                posted = []

                def post():
                    for number in range(150):
                        posted.append(self.server.post(alice, conversation, f"number {number}"))

                poster = threading.Thread(target=post)
                poster.start()
                got = [session.expect("MESSAGE").json() for _ in range(150)]
                poster.join()
                self.assertEqual(got, posted)

    def test_a_stream_ends_after_128_kib_and_nothing_is_lost(self):
        for transport in STREAMING:
            with self.subTest(transport):
                alice, bob = users(2)
                conversation = self.server.conversation(alice, bob)
                session = self.connect(bob, transport)
                session.subscribe("/user/queue/messages")
                for number in range(80):
                    posted = self.server.post(alice, conversation, f"{number} {'x' * 3_900}")
                    self.assertEqual(session.expect("MESSAGE").json(), posted)
                # Some 330 KiB of messages, one at a time: more than two streams hold, and no more than three.
                self.assertEqual(session.streams, 3)

    def test_message_bodies_cannot_break_out(self):
        evil = ["a\n\ndata: c[3000,\"x\"]\n\nb", "\r\n\r\nevent: x", "a < /script > b", "'); p('", '"); alert("', "\u2028\u2029"]
        for transport in HTTP_TRANSPORTS:
            with self.subTest(transport):
                (user,) = users(1)
                session = self.connect(user, transport)
                # A receipt is echoed unchanged: header text of the client's choice.
                for number, text in enumerate(evil):
                    escaped = text.replace("\\", "\\\\").replace("\r", "\\r").replace("\n", "\\n").replace(":", "\\c")
                    session.say(f"SEND\ndestination:/app/heartbeat\nreceipt:{number}{escaped}\n\n\0")
                    self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], f"{number}{escaped}")

    def test_script_ends_cannot_break_out_of_htmlfile(self):
        (user,) = users(1)
        session = self.connect(user, "htmlfile")
        session.say("SEND\ndestination:/app/heartbeat\nreceipt:</script><script>alert(1)</script><!--\n\n\0")
        body = session.stream.until(b");\n</script>\r\n").lower()
        for mark in (b"</script", b"<script>alert", b"<!--"):
            self.assertNotIn(mark, body)

    def test_several_frames_in_a_message_and_one_in_several(self):
        (user,) = users(1)
        session = self.connect(user)
        session.send(ALIVE + "\n" + ALIVE, ALIVE[:20], ALIVE[20:])
        for _ in range(3):
            session.expect("RECEIPT")


class Authentication(SockJsTest):
    def test_a_bad_token_opens_nothing(self):
        (user,) = users(1)
        for token in ("garbage", mint(user, ttl=-10), "", mint(user) + "x"):
            for transport, (method, suffix) in RECEIVE.items():
                path = sockjs.join(f"/ws/000/{uuid.uuid4().hex}?token={token}", suffix)
                self.assertEqual(self.ask(method, path).status, 401, (transport, token[:10]))
            for path in (f"/ws/000/{uuid.uuid4().hex}/websocket", "/ws/websocket", "/ws"):
                with Http(self.server) as connection:
                    connection.send(raw.handshake(f"{path}?token={token}"))
                    self.assertEqual(connection.response().status, 401, (path, token[:10]))

    def test_a_bad_token_is_ignored_by_requests_that_open_nothing(self):
        for path in ("/ws/info", "/ws/iframe.html", "/ws/iframe-1.6.1.html", "/ws", "/ws/"):
            self.assertEqual(self.ask("GET", f"{path}?token=garbage").status, 200, path)
        preflight = ["Origin: http://example.com", "Access-Control-Request-Method: POST"]
        self.assertIn(self.ask("OPTIONS", f"/ws/000/{uuid.uuid4().hex}/xhr?token=garbage", preflight).status, (200, 204))

    def test_an_open_session_whose_token_expires_is_cut(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                (user,) = users(1)
                session = Stomp.connect(self.server, mint(user, ttl=2), transport)
                self.addCleanup(session.close)
                began = time.monotonic()
                self.assertIn("expired", session.expect("ERROR").headers["message"])
                self.assert_closes(session, 1008)
                self.assertLess(time.monotonic() - began, 3.5)

    def test_other_methods(self):
        for transport, (method, suffix) in RECEIVE.items():
            for other in {"GET", "POST", "PUT", "DELETE"} - {method}:
                response = self.ask(other, f"/ws/000/{uuid.uuid4().hex}{suffix}")
                self.assertEqual((response.status, response.body), (405, b""), (transport, other))
                self.assertIn(method, response.headers["allow"])
                self.assertNotIn("content-type", response.headers)


class SharedSession(SockJsTest):
    """A session answers only to the user who opened it."""

    def test_another_user_gets_nothing(self):
        alice, bob, carol = users(3)
        conversation = self.server.conversation(carol, alice)
        for transport in HTTP_TRANSPORTS:
            with self.subTest(transport):
                session = self.connect(alice, transport)
                session.subscribe("/user/queue/messages")
                thief = Session(self.server, "/ws", transport, mint(bob), session=session.id)
                self.addCleanup(thief.close)
                stored = self.server.post(carol, conversation, f"for alice by {transport}")
                # A thief's token opens a session of its own, or none.
                try:
                    self.assertEqual(thief.packet(), "o")
                except AssertionError as refused:
                    self.assertIn("404", str(refused))
                self.assertEqual(session.expect("MESSAGE").json(), stored)
                self.assert_alive(session)

    def test_another_user_cannot_speak_for_it(self):
        alice, bob, carol = users(3)
        conversation = self.server.conversation(alice, carol)
        body = json.dumps({"content": "forged"})
        frame = f"SEND\ndestination:/app/conversations/{conversation}/send\n\n{body}\0"
        session = self.connect(alice)
        for token in (f"?token={mint(bob)}", "", "?token=garbage"):
            data = json.dumps([frame])
            response = self.ask("POST", f"/ws/000/{session.id}/xhr_send{token}", body=data.encode())
            self.assertIn(response.status, (401, 404), token[:10])
            form = b"d=" + data.encode().replace(b"&", b"%26")
            response = self.ask("POST", f"/ws/000/{session.id}/jsonp_send{token}", [FORM], form)
            self.assertIn(response.status, (401, 404), token[:10])
        self.assert_alive(session)
        self.assertEqual(self.server.history(alice, conversation), [])

    def test_another_user_cannot_end_it(self):
        alice, bob = users(2)
        session = self.connect(alice, "xhr_streaming")
        for token in (f"?token={mint(bob)}", ""):
            with Http(self.server) as thief:
                thief.request("POST", f"/ws/000/{session.id}/xhr_streaming{token}")
                thief.head()
        self.assert_alive(session)

    def test_another_token_of_the_same_user(self):
        (alice,) = users(1)
        session = self.connect(alice)
        session.url = f"/ws/000/{session.id}?token={mint(alice, ttl=1800)}"
        self.assert_alive(session)

    def test_requests_arrive_at_any_shard(self):
        (alice,) = users(1)
        session = self.connect(alice)
        # The operating system spreads new connections over the shards.
        for number in range(30):
            data = json.dumps([f"SEND\ndestination:/app/heartbeat\nreceipt:{number}\n\n\0"]).encode()
            self.assertEqual(self.ask("POST", sockjs.join(session.url, "/xhr_send"), body=data).status, 204)
            body = self.ask("POST", sockjs.join(session.url, "/xhr")).body.decode()
            self.assertIn(f"receipt-id:{number}\\n", body)


class Ends(SockJsTest):
    def test_two_receivers(self):
        for transport in STREAMING:
            (alice,) = users(1)
            session = self.connect(alice, transport)
            second = Session(self.server, "/ws", transport, session=session.id)
            second.url = session.url
            self.addCleanup(second.close)
            self.assertEqual(second.packet(), STILL_OPEN)
            self.assertEqual(second.stream.rest(), b"")
            self.assert_alive(session)

    def test_an_aborted_stream_ends_the_session_at_once(self):
        for transport in STREAMING:
            with self.subTest(transport):
                (alice,) = users(1)
                session = self.connect(alice, transport)
                session.stream.close()
                self.assertLess(self.assert_gone(session, within=2), 2)

    def test_an_aborted_poll_ends_the_session_at_once(self):
        (alice,) = users(1)
        session = self.connect(alice)
        poll = Http(self.server)
        poll.request("POST", sockjs.join(session.url, "/xhr"))
        # Its bytes arrive before the end of its connection, whenever the server reads them.
        poll.close()
        self.assertLess(self.assert_gone(session, within=2), 2)

    def test_never_polling(self):
        alice, *readers = users(21)
        conversations = [self.server.conversation(alice, reader) for reader in readers]
        sessions = []
        for reader in readers:
            session = self.connect(reader)
            session.subscribe("/user/queue/messages")
            sessions.append(session)
        before = self.server.resident_bytes()
        with raw.Stomp.connect(self.server, mint(alice)) as sender:
            for conversation in conversations:
                body = json.dumps({"content": "x" * 3_900})
                frame = f"SEND\ndestination:/app/conversations/{conversation}/send\n\n{body}\0"
                for _ in range(20):
                    sender.say(frame)
            sender.say(ALIVE)
            while sender.frame().command != "RECEIPT":
                pass
        self.assertLess(self.server.resident_bytes() - before, 24 * 1024 * 1024)
        for session in sessions:
            self.assert_gone(session, within=8)

    def test_a_session_that_is_never_polled_is_closed_at_its_limit(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        session = self.connect(bob)
        session.subscribe("/user/queue/messages")
        before = self.server.resident_bytes()
        body = json.dumps({"content": "x" * 3_900})
        with raw.Stomp.connect(self.server, mint(alice)) as sender:
            # Three times the limit: a RECEIPT may arrive while the last messages are still on their way to the other shard.
            for number in range(400):
                sender.say(f"SEND\ndestination:/app/conversations/{conversation}/send\nreceipt:{number}\n\n{body}\0")
            for _ in range(400):
                sender.expect("RECEIPT")
        self.assertLess(self.server.resident_bytes() - before, 16 * 1024 * 1024)
        with self.assertRaises(Closed) as closed:
            while True:
                session.message()
        self.assertEqual(closed.exception.code, 4500)
        self.assertEqual(closed.exception.reason, "Failed to send message within the configured send limit")

    def test_a_session_without_a_receiver_ends_after_5_seconds(self):
        (alice,) = users(1)
        session = self.connect(alice)
        took = self.assert_gone(session, within=6.5)
        self.assertGreater(took, 4)

    def test_sends_before_a_reset_are_carried_out(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        session = self.connect(alice)
        body = json.dumps({"content": "before the reset"})
        data = json.dumps([f"SEND\ndestination:/app/conversations/{conversation}/send\n\n{body}\0"]).encode()
        sender = Http(self.server)
        sender.request("POST", sockjs.join(session.url, "/xhr_send"), body=data)
        sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sender.close()
        deadline = time.monotonic() + 3
        while not (history := self.server.history(bob, conversation)):
            self.assertLess(time.monotonic(), deadline, "the send before the reset was not carried out")
            time.sleep(0.02)
        self.assertEqual([message["content"] for message in history], ["before the reset"])

    def test_disconnect(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                (alice,) = users(1)
                session = self.connect(alice, transport)
                session.say("DISCONNECT\nreceipt:bye\n\n\0")
                self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "bye")
                self.assert_closes(session, 1000)

    def test_a_protocol_fault(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                (alice,) = users(1)
                session = self.connect(alice, transport)
                session.say("NONSENSE\n\n\0")
                self.assertTrue(session.expect("ERROR").headers["message"])
                self.assert_closes(session, 1002)

    def test_the_close_is_repeated(self):
        (alice,) = users(1)
        session = self.connect(alice)
        session.say("NONSENSE\n\n\0")
        session.expect("ERROR")
        closes = [session.packet() for _ in range(3)]
        self.assertTrue(closes[0].startswith("c[1002,"), closes)
        self.assertEqual(closes[1:], closes[:2])

    def test_frames_at_and_over_the_limit(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                (alice,) = users(1)
                session = self.connect(alice, transport)
                head = "SEND\ndestination:/app/heartbeat\nreceipt:r\n\n"
                session.say(head + "x" * (65_536 - len(head) - 1) + "\0")
                self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "r")
                session.say(head + "x" * (65_536 - len(head)) + "\0")
                self.assertIn("65536", session.expect("ERROR").headers["message"].replace(",", ""))
                self.assert_closes(session, 1009)


class BadInput(SockJsTest):
    def test_bad_json(self):
        (alice,) = users(1)
        for transport in ("xhr", "jsonp"):
            session = self.connect(alice, transport)
            for data, reason in (('["x', b"Broken JSON encoding."), ('["x"]]', b"Broken JSON encoding."), ("", b"Payload expected.")):
                response = session.post(data)
                self.assertEqual(response.status, 500, data)
                self.assertIn(reason, response.body)
            self.assertEqual(session.post("[1]").status, 500)
            self.assertEqual(session.post("[" * 10_000 + "]" * 10_000).status, 500)
            self.assert_alive(session)

    def test_bad_ids(self):
        for path in ("/ws/./a/xhr", "/ws/a/../xhr", "/ws/a.b/c/xhr", "/ws//c/xhr", "/ws/a//xhr", "/ws/a/b/c/xhr", "/ws/a/b/XHR"):
            self.assertEqual(self.ask("POST", path).status, 404, path)
        # An id as long as a request line allows costs no more than a session.
        response = self.ask("POST", f"/ws/000/{'a' * 4_000}/xhr")
        self.assertIn(response.status, (200, 404, 414))

    def test_bad_callbacks(self):
        for callback in ("", "%20", "alert(1)", "a%3Cscript%3E", "a%0D%0AX%3A1"):
            for transport in ("htmlfile", "jsonp"):
                response = self.ask("GET", f"/ws/000/{uuid.uuid4().hex}/{transport}?c={callback}")
                self.assertEqual(response.status, 500, (transport, callback[:20]))
                self.assertNotIn(b"<script", response.body)

    def test_lone_surrogates_are_no_text(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        session = self.connect(alice)
        # Two levels of JSON: SockJS's array, and the message in the frame.
        frame = f"SEND\\ndestination:/app/conversations/{conversation}/send\\nreceipt:r\\n\\n{{\\\"content\\\":\\\"a\\ud800b\\\"}}\\u0000"
        status = session.post(f'["{frame}"]').status
        self.assertIn(status, (204, 500))
        for message in self.server.history(bob, conversation):
            self.assertEqual(message["content"], "a\ufffdb")

    def test_too_large_a_body(self):
        (alice,) = users(1)
        session = self.connect(alice)
        with Http(self.server) as connection:
            connection.send(f"POST {sockjs.join(session.url, '/xhr_send')} HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n".encode())
            self.assertEqual(connection.response().status, 413)

    def test_thousands_of_ids(self):
        before = self.server.resident_bytes()
        with Http(self.server) as connection:
            for _ in range(2_000):
                self.assertEqual(connection.ask("POST", f"/ws/000/{uuid.uuid4().hex}/xhr").status, 200)
        self.assertLess(self.server.resident_bytes() - before, 32 * 1024 * 1024)


class Cors(SockJsTest):
    settings = {"cors.origins": "https://chat.example.com,https://*.example.org,http://localhost:3000"}

    ALLOWED = ("https://chat.example.com", "https://a.example.org", "https://a.b.example.org", "http://localhost:3000")
    REFUSED = (
        "null",
        "http://chat.example.com",
        "https://chat.example.com:444",
        "https://chat.example.com.evil.example",
        "https://evilchat.example.com",
        "https://example.org",
        "https://evilexample.org",
        "https://a.example.org.evil.example",
        "https://chat.example.com/",
        "https://chat.example.com@evil.example",
        "https://CHAT.example.com",
        "http://localhost:3001",
        "file://",
        "",
    )

    def routes(self):
        """(method, path) of every kind of route."""
        (user,) = users(1)
        session = f"/ws/000/{uuid.uuid4().hex}"
        return [
            ("GET", "/ws"),
            ("GET", "/ws/info"),
            ("GET", "/ws/iframe.html"),
            ("POST", f"{session}/xhr"),
            ("POST", f"{session}/xhr_send"),
            ("POST", f"{session}/jsonp_send"),
            ("GET", f"/conversations?token={mint(user)}"),
            ("POST", "/auth/login"),
            ("GET", "/healthz"),
            ("GET", "/nowhere"),
        ]

    def test_allowed_origins_are_echoed_everywhere(self):
        for origin in self.ALLOWED:
            for method, path in self.routes():
                response = self.ask(method, path, [f"Origin: {origin}"])
                self.assertEqual(response.headers.get("access-control-allow-origin"), origin, (method, path))
                self.assertEqual(response.headers.get("access-control-allow-credentials"), "true", (method, path))
                self.assertIn("origin", response.headers.get("vary", "").lower(), (method, path))

    def test_other_origins_are_refused_everywhere(self):
        for origin in self.REFUSED:
            for method, path in self.routes():
                response = self.ask(method, path, [f"Origin: {origin}"])
                self.assertEqual(response.status, 403, (origin, method, path))
                self.assertNotIn("access-control-allow-origin", response.headers)
                self.assertNotIn("access-control-allow-credentials", response.headers)

    def test_streams_and_websockets_of_other_origins_are_refused(self):
        (user,) = users(1)
        for transport, (method, suffix) in RECEIVE.items():
            url = sockjs.join(f"/ws/000/{uuid.uuid4().hex}?token={mint(user)}", suffix)
            self.assertEqual(self.ask(method, url, ["Origin: https://evil.example"]).status, 403, transport)
        for path in ("/ws", "/ws/websocket", f"/ws/000/{uuid.uuid4().hex}/websocket"):
            with Http(self.server) as connection:
                connection.send(raw.handshake(f"{path}?token={mint(user)}", ["Origin: https://evil.example"]))
                self.assertEqual(connection.response().status, 403, path)

    def test_the_own_origin_is_allowed(self):
        for scheme in ("http", "https"):
            with Http(self.server) as connection:
                connection.request("GET", "/ws/info", [f"Origin: {scheme}://chat.example.net"], host="chat.example.net")
                response = connection.response()
            self.assertEqual((response.status, response.headers["access-control-allow-origin"]), (200, f"{scheme}://chat.example.net"))

    def test_without_an_origin(self):
        response = self.ask("GET", "/ws/info")
        self.assertEqual((response.status, response.headers["access-control-allow-origin"]), (200, "*"))
        self.assertNotIn("access-control-allow-credentials", response.headers)

    def test_preflights(self):
        paths = {"/ws/info": "GET", "/conversations": "POST", "/users/1/block": "PUT", "/auth/login": "POST"}
        for suffix in ("xhr", "xhr_send", "xhr_streaming"):
            paths[f"/ws/000/abc/{suffix}"] = "POST"
        for path, method in paths.items():
            asked = [f"Access-Control-Request-Method: {method}", "Access-Control-Request-Headers: authorization, content-type"]
            response = self.ask("OPTIONS", path, ["Origin: https://chat.example.com", *asked])
            self.assertIn(response.status, (200, 204), path)
            self.assertEqual(response.body, b"")
            self.assertEqual(response.headers["access-control-allow-origin"], "https://chat.example.com")
            self.assertEqual(response.headers["access-control-allow-credentials"], "true")
            self.assertIn(method, response.headers["access-control-allow-methods"])
            self.assertEqual(response.headers["access-control-allow-headers"].lower(), "authorization, content-type")
            self.assertGreater(int(response.headers["access-control-max-age"]), 0)
            for origin in ("https://evil.example", "null"):
                response = self.ask("OPTIONS", path, [f"Origin: {origin}", *asked])
                self.assertEqual(response.status, 403, (path, origin))
                self.assertNotIn("access-control-allow-origin", response.headers)


class AnyOrigin(SockJsTest):
    """The development profile's `*`."""

    def test_every_origin_is_echoed(self):
        for origin in ("https://anywhere.example", "null", "http://localhost:5173"):
            response = self.ask("GET", "/ws/info", [f"Origin: {origin}"])
            self.assertEqual((response.status, response.headers["access-control-allow-origin"]), (200, origin))
            self.assertEqual(response.headers["access-control-allow-credentials"], "true")

    def test_two_origins_are_none(self):
        for path in ("/ws/info", "/healthz"):
            response = self.ask("GET", path, ["Origin: https://a.example", "Origin: https://b.example"])
            self.assertIn(response.status, (400, 403))


class HeartBeats(SockJsTest):
    settings = {"limits.ping": "1s", "limits.heartbeat_ms": 1_000}

    def packets(self, sessions, count):
        """The next packets of sessions that all receive at once."""
        got = {}

        def receive(session):
            got[session.transport] = [session.packet() for _ in range(count)]

        threads = [threading.Thread(target=receive, args=(session,)) for session in sessions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return got

    def test_packets_of_sockjs(self):
        sessions = [self.connect(users(1)[0], transport) for transport in HTTP_TRANSPORTS]
        # For longer than a client without promised beats may be silent: fetching packets counts as a sign of life.
        got = self.packets(sessions, 5)
        self.assertEqual(got, {transport: ["h"] * 5 for transport in HTTP_TRANSPORTS})
        for session in sessions:
            self.assert_alive(session)

    def test_none_where_stomp_beats(self):
        sessions = [self.connect(users(1)[0], transport, beats="0,1000") for transport in HTTP_TRANSPORTS]
        got = self.packets(sessions, 5)
        self.assertEqual(got, {transport: ['a["\\n"]'] * 5 for transport in HTTP_TRANSPORTS})

    def test_both_on_a_websocket(self):
        session = self.connect(users(1)[0], "websocket")
        for _ in range(4):
            self.assertEqual(session.websocket.receive(), (raw.TEXT, b"h"))
            opcode, payload = session.websocket.receive()
            self.assertEqual(opcode, raw.PING)
            session.websocket.send(raw.packet(raw.PONG, payload))
        self.assert_alive(session)

    def test_a_client_that_breaks_its_promise(self):
        # A poll is a sign of life by itself, and so is the answer to a ping.
        for transport in STREAMING:
            with self.subTest(transport):
                session = self.connect(users(1)[0], transport, beats="1000,0")
                self.assert_closes(session, 4408)


if __name__ == "__main__":
    unittest.main()
