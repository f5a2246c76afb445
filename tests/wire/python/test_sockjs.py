"""The statements of SockJS's own protocol suite (sockjs-protocol.py, protocol 0.3.3), against `examples/conformance`.

docs/sockjs.md names the test here for each statement; `Table` compares that page with this file.
"""

import json
import re
import struct
import time
import unittest
import uuid

from wire import raw, sockjs
from wire.case import WireTest
from wire.raw import BINARY, CLOSE, TEXT, Closed, Http, WebSocket, packet
from wire.server import ROOT, Conformance
from wire.sockjs import FORM, HTTP_TRANSPORTS, STREAMING, XHR_PRELUDE, Session, Stream

NOT_CACHED = "no-store, no-cache, no-transform, must-revalidate, max-age=0"
GO_AWAY = 'c[3000,"Go away!"]'
STILL_OPEN = 'c[2010,"Another connection still open"]'
ORIGINS = ("http://example.com", "https://chat.example.com:8443", "null")
UPGRADE = ("Connection: Upgrade", "Upgrade: WebSocket")


class SockJsTest(WireTest):
    @classmethod
    def setUpClass(cls):
        cls.server = Conformance()

    def ask(self, method, path, headers=(), body=b""):
        """One request on a connection of its own."""
        with Http(self.server) as connection:
            return connection.ask(method, path, headers, body)

    def session(self, base="/echo", transport="xhr", **options):
        session = Session(self.server, base, transport, **options)
        self.addCleanup(session.close)
        return session

    def stream(self, session, transport="xhr_streaming", headers=()):
        """A receiving stream of a session, its prelude unread."""
        stream = sockjs.receive(self.server, session.url, transport, headers)
        self.addCleanup(stream.close)
        return stream

    def websocket(self, path, headers=()):
        connection = WebSocket.open(self.server, headers=headers, path=path)
        self.addCleanup(connection.close)
        return connection

    def assert_type(self, response, expect):
        self.assertEqual(response.headers["content-type"].replace(" ", ""), expect)

    def assert_not_cached(self, response):
        self.assertEqual(response.headers["cache-control"], NOT_CACHED)
        self.assertNotIn("expires", response.headers)
        self.assertNotIn("last-modified", response.headers)

    def assert_cached_long(self, response):
        self.assertIn("public", response.headers["cache-control"])
        self.assertRegex(response.headers["cache-control"], "max-age=[1-9][0-9]{6}")
        self.assertTrue(response.headers["expires"])

    def assert_cors(self, response, origin):
        """`origin` may use the response, with credentials; without an origin any page may, without credentials."""
        self.assertEqual(response.headers["access-control-allow-origin"], origin or "*")
        self.assertEqual(response.headers.get("access-control-allow-credentials"), "true" if origin else None)

    def assert_preflight(self, path, methods):
        for origin in ORIGINS:
            headers = [f"Origin: {origin}", f"Access-Control-Request-Method: {methods[-1]}"]
            response = self.ask("OPTIONS", path, headers)
            self.assertIn(response.status, (200, 204))
            self.assert_cached_long(response)
            self.assertGreater(int(response.headers["access-control-max-age"]), 1_000_000)
            allowed = {name.strip() for name in response.headers["access-control-allow-methods"].split(",")}
            self.assertLessEqual(set(methods), allowed)
            self.assertEqual(response.body, b"")
            self.assert_cors(response, origin)

    def assert_405(self, response, allow):
        self.assertEqual((response.status, response.body), (405, b""))
        self.assertNotIn("content-type", response.headers)
        allowed = {name.strip() for name in response.headers["allow"].split(",")}
        self.assertLessEqual(set(allow), allowed)

    def assert_no_more(self, connection):
        """The WebSocket's next packet is a close, or the connection is at its end; the close code."""
        with self.assertRaises(Closed) as closed:
            connection.receive()
        return closed.exception


class Greeting(SockJsTest):
    def test_the_greeting(self):
        for path in ("/echo", "/echo/", "/close", "/echo?x=1"):
            response = self.ask("GET", path)
            self.assertEqual((response.status, response.body), (200, b"Welcome to SockJS!\n"), path)
            self.assert_type(response, "text/plain;charset=UTF-8")
            self.assertNotIn("set-cookie", response.headers)

    def test_other_paths_are_not_found(self):
        for suffix in ("/a", "/a.html", "//", "///", "/a/a", "/a/a/", "/a/", "/a/a/a", "/xhr", "/a/xhr"):
            self.assertEqual(self.ask("GET", "/echo" + suffix).status, 404, suffix)


class Iframe(SockJsTest):
    # The page word for word, but for the client's address.
    PAGE = re.compile(
        "<!DOCTYPE html>\n<html>\n<head>\n"
        '  <meta http-equiv="X-UA-Compatible" content="IE=edge" />\n'
        '  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />\n'
        '  <script src="((?:/|http)[^"]*)"></script>\n'
        "  <script>\n    document.domain = document.domain;\n    SockJS.bootstrap_iframe\\(\\);\n  </script>\n"
        "</head>\n<body>\n  <h2>Don't panic!</h2>\n"
        "  <p>This is a SockJS hidden iframe. It's used for cross domain magic.</p>\n</body>\n</html>"
    )

    def assert_page(self, suffix):
        response = self.ask("GET", "/echo" + suffix)
        self.assertEqual(response.status, 200, suffix)
        self.assert_type(response, "text/html;charset=UTF-8")
        self.assert_cached_long(response)
        self.assertTrue(response.headers["etag"])
        self.assertNotIn("last-modified", response.headers)
        self.assertNotIn("set-cookie", response.headers)
        self.assertRegex(response.body.decode().strip(), self.PAGE)

    def test_the_page(self):
        self.assert_page("/iframe.html")

    def test_a_version_in_the_name(self):
        for version in ("a", "", "0.1.2", "0.1.2abc-dirty.2144"):
            self.assert_page(f"/iframe-{version}.html")

    def test_a_query_against_caches(self):
        for suffix in ("/iframe.html?t=1", "/iframe-a.html?t=1234", "/iframe-0.1.2abc-dirty.2144.html?t=qweqweq123"):
            self.assert_page(suffix)

    def test_other_names_are_not_found(self):
        for name in ("iframe.htm", "iframe", "IFRAME.HTML", "IFRAME", "iframe.HTML", "iframe.xml", "iframe-/.html"):
            self.assertEqual(self.ask("GET", f"/echo/{name}").status, 404, name)

    def test_a_cached_page_is_asked_for_by_its_etag(self):
        first, second = (self.ask("GET", "/echo/iframe.html").headers["etag"] for _ in range(2))
        self.assertEqual(first, second)
        for tags in (first, f'"other", {first}', f"W/{first}", "*"):
            response = self.ask("GET", "/echo/iframe.html", [f"If-None-Match: {tags}"])
            self.assertEqual((response.status, response.body), (304, b""), tags)
            self.assertNotIn("content-type", response.headers)
        self.assertEqual(self.ask("GET", "/echo/iframe.html", ['If-None-Match: "other"']).status, 200)


class Info(SockJsTest):
    def test_the_response(self):
        response = self.ask("GET", "/echo/info", ["Origin: http://example.com"])
        self.assertEqual(response.status, 200)
        self.assert_type(response, "application/json;charset=UTF-8")
        self.assertNotIn("set-cookie", response.headers)
        self.assert_not_cached(response)
        self.assert_cors(response, "http://example.com")
        info = response.json()
        self.assertIs(info["websocket"], True)
        self.assertIs(info["cookie_needed"], False)
        self.assertEqual(info["origins"], ["*:*"])

    def test_without_an_origin(self):
        self.assert_cors(self.ask("GET", "/echo/info"), None)

    def test_entropy(self):
        # Thirty-two draws from 2^32 that all differ: a repetition is one in eight million.
        drawn = [self.ask("GET", "/echo/info").json()["entropy"] for _ in range(32)]
        self.assertEqual({type(number) for number in drawn}, {int})
        self.assertTrue(all(0 <= number < 2**32 for number in drawn), drawn)
        self.assertEqual(len(set(drawn)), len(drawn))

    def test_preflight(self):
        self.assert_preflight("/echo/info", ("OPTIONS", "GET"))

    def test_preflight_from_a_file(self):
        response = self.ask("OPTIONS", "/echo/info", ["Origin: null", "Access-Control-Request-Method: POST"])
        self.assertIn(response.status, (200, 204))
        self.assertEqual((response.body, response.headers["access-control-allow-origin"]), (b"", "null"))

    def test_websocket_switched_off(self):
        self.assertIs(self.ask("GET", "/disabled_websocket_echo/info").json()["websocket"], False)

    def test_cookie_needed(self):
        response = self.ask("GET", "/cookie_needed_echo/info")
        self.assertIs(response.json()["cookie_needed"], True)
        self.assertNotIn("set-cookie", response.headers)


class SessionUrls(SockJsTest):
    def test_any_server_and_session(self):
        for server, prefix in (("a", "a"), ("_", "_"), ("1", ""), ("abcdefgh_i-j%20", "abcdefg_i-j%20")):
            path = f"/echo/{server}/{prefix}{uuid.uuid4().hex}/xhr"
            response = self.ask("POST", path)
            self.assertEqual((response.status, response.body), (200, b"o\n"), path)

    def test_bad_paths_are_not_found(self):
        for suffix in ("//", "/a./a", "/a/a.", "/./.", "/", "///", "/a/a/a", "//a", "/a/"):
            for method in ("GET", "POST"):
                self.assertEqual(self.ask(method, f"/echo{suffix}/xhr").status, 404, (method, suffix))

    def test_the_server_part_is_ignored(self):
        session = self.session().open()
        session.send("a")
        response = self.ask("POST", f"/echo/999/{session.id}/xhr")
        self.assertEqual((response.status, response.body), (200, b'a["a"]\n'))

    def test_a_session_belongs_to_its_service(self):
        session = self.session().open()
        self.assertEqual(self.ask("POST", f"/close/000/{session.id}/xhr_send", body=b'["a"]').status, 404)


class Protocol(SockJsTest):
    def test_a_simple_session(self):
        session = self.session()
        response = self.ask("POST", f"{session.url}/xhr")
        self.assertEqual((response.status, response.body), (200, b"o\n"))
        response = self.ask("POST", f"{session.url}/xhr_send", body=b'["a"]')
        self.assertEqual((response.status, response.body), (204, b""))
        response = self.ask("POST", f"{session.url}/xhr")
        self.assertEqual((response.status, response.body), (200, b'a["a"]\n'))

    def test_messages_between_polls_come_together(self):
        session = self.session().open()
        session.send("a", "b")
        session.send("c")
        self.assertEqual(session.messages(3), ["a", "b", "c"])

    def test_sending_to_an_unknown_session(self):
        for suffix in ("/xhr_send", "/jsonp_send"):
            self.assertEqual(self.ask("POST", f"/echo/000/{uuid.uuid4().hex}{suffix}", body=b'["a"]').status, 404)

    def test_a_session_without_a_receiver_ends_after_5_seconds(self):
        session = self.session().open()
        kept = self.session().open()
        began = time.monotonic()
        # A poll that waits is a receiver: it keeps its session as long as it waits.
        waiting = Http(self.server)
        self.addCleanup(waiting.close)
        waiting.request("POST", f"{kept.url}/xhr")
        while self.ask("POST", f"{session.url}/xhr_send", body=b"[]").status == 204:
            self.assertLess(time.monotonic() - began, 6.5)
            time.sleep(0.1)
        self.assertGreater(time.monotonic() - began, 4.5)
        self.assertEqual(self.session(session=session.id).packet(), "o")
        kept.send("still here")
        self.assertEqual(waiting.response().body, b'a["still here"]\n')

    def test_two_receivers(self):
        session = self.session().open()
        waiting = Http(self.server)
        self.addCleanup(waiting.close)
        self.poll_and_wait(waiting, session)
        second = self.ask("POST", f"{session.url}/xhr")
        self.assertEqual((second.status, second.body), (200, STILL_OPEN.encode() + b"\n"))
        # The first receiver is unaffected.
        session.send("a")
        self.assertEqual(waiting.response().body, b'a["a"]\n')

    def poll_and_wait(self, connection, session):
        """A poll that the server has received before any later request: it got a message, and asked again."""
        connection.request("POST", f"{session.url}/xhr")
        session.send("first")
        self.assertEqual(connection.response().body, b'a["first"]\n')
        connection.request("POST", f"{session.url}/xhr")
        # Another shard may serve another connection. Its requests overtake none that were read before, but
        # only the operating system knows what was read: wait a moment.
        time.sleep(0.25)

    def test_closed_by_the_server(self):
        session = self.session("/close").open()
        for _ in range(3):
            self.assertEqual(session.packet(), GO_AWAY)


class WebSocketErrors(SockJsTest):
    def test_no_upgrade(self):
        self.assertEqual(self.ask("GET", "/echo/0/0/websocket").status, 400)

    def test_a_connection_header_without_upgrade(self):
        response = self.ask("GET", "/echo/0/0/websocket", ("Upgrade: WebSocket", "Connection: close"))
        self.assertEqual(response.status, 400)

    def test_other_methods(self):
        for headers in ((), UPGRADE):
            self.assert_405(self.ask("POST", "/echo/0/0/websocket", headers), {"GET"})

    def test_switched_off(self):
        with Http(self.server) as connection:
            connection.send(raw.handshake(f"/disabled_websocket_echo/0/{uuid.uuid4().hex}/websocket"))
            self.assertEqual(connection.response().status, 404)


class WebSockets(SockJsTest):
    def test_transport(self):
        session = self.session(transport="websocket").open()
        session.websocket.send(packet(TEXT, b'["a"]'))
        self.assertEqual(session.packet(), 'a["a"]')

    def test_a_message_without_an_array(self):
        session = self.session(transport="websocket").open()
        session.websocket.send(packet(TEXT, b'"a"'))
        self.assertEqual(session.message(), "a")

    def test_closed_by_the_server(self):
        session = self.session("/close", "websocket").open()
        self.assertEqual(session.packet(), GO_AWAY)
        self.assert_no_more(session.websocket)

    def test_the_handshake(self):
        with Http(self.server) as connection:
            path = f"/echo/000/{uuid.uuid4().hex}/websocket"
            headers = ["Sec-WebSocket-Origin: http://asd"]
            connection.send(raw.handshake(path, headers, key="x3JJHMbDL1EzLkh9GBhXDw=="))
            response = connection.response()
        self.assertEqual(response.status, 101)
        # RFC 6455 section 1.3: the key's answer.
        self.assertEqual(response.headers["sec-websocket-accept"], "HSmrc0sMlYUkAGmm5OPpG2HaGWk=")
        self.assertEqual(response.headers["connection"].lower(), "upgrade")
        self.assertEqual(response.headers["upgrade"].lower(), "websocket")
        self.assertNotIn("content-length", response.headers)
        self.assertNotIn("transfer-encoding", response.headers)

    def test_empty_messages_are_ignored(self):
        session = self.session(transport="websocket").open()
        for data in (b"", b"[]", b'["a"]'):
            session.websocket.send(packet(TEXT, data))
        self.assertEqual(session.packet(), 'a["a"]')

    def test_a_session_id_used_twice(self):
        first = self.session(transport="websocket").open()
        second = self.session(transport="websocket", session=first.id).open()
        for session, word in ((first, "a"), (second, "b"), (first, "c")):
            session.send(word)
            self.assertEqual(session.packet(), f'a["{word}"]')
        first.close()
        second.close()
        third = self.session(transport="websocket", session=first.id).open()
        third.send("d")
        self.assertEqual(third.packet(), 'a["d"]')

    def test_a_session_of_another_transport_with_the_same_id(self):
        polled = self.session().open()
        self.session(transport="websocket", session=polled.id).open().close()
        polled.send("a")
        self.assertEqual(polled.packet(), 'a["a"]')

    def test_broken_json(self):
        for data in (b'["a', b"a", b'["a"]x', b'["\\x"]', b"["):
            self.assert_closes(data)

    def test_only_strings_are_messages(self):
        for data in (b'{"a":1}', b"[1]", b'["a",null]', b"[[]]", b"1"):
            self.assert_closes(data)

    def assert_closes(self, data):
        session = self.session(transport="websocket").open()
        session.websocket.send(packet(TEXT, data))
        # A packet may give the reason.
        with self.assertRaises(Closed, msg=data):
            packet_of_close = session.packet()
            self.assertTrue(packet_of_close.startswith("c["), packet_of_close)
            session.packet()


class XhrPolling(SockJsTest):
    def test_preflight(self):
        for suffix in ("/xhr", "/xhr_send"):
            self.assert_preflight(f"/echo/abc/abc{suffix}", ("OPTIONS", "POST"))

    def test_transport(self):
        origin = "http://example.com"
        session = self.session()
        response = self.ask("POST", f"{session.url}/xhr", [f"Origin: {origin}"])
        self.assertEqual((response.status, response.body), (200, b"o\n"))
        self.assert_type(response, "application/javascript;charset=UTF-8")
        self.assert_cors(response, origin)
        self.assert_not_cached(response)

        response = self.ask("POST", f"{session.url}/xhr_send", [f"Origin: {origin}"], b'["x"]')
        self.assertEqual((response.status, response.body), (204, b""))
        self.assert_type(response, "text/plain;charset=UTF-8")
        self.assert_cors(response, origin)
        self.assert_not_cached(response)

        response = self.ask("POST", f"{session.url}/xhr")
        self.assertEqual((response.status, response.body), (200, b'a["x"]\n'))
        self.assert_cors(response, None)

    def test_sending_to_an_unknown_session(self):
        self.assertEqual(self.session().post('["x"]').status, 404)

    def test_bad_json(self):
        session = self.session().open()
        for data in ('["x', "x", '["x"]x', '["\\x"]'):
            response = session.post(data)
            self.assertEqual(response.status, 500, data)
            self.assertIn(b"Broken JSON encoding.", response.body, data)
        response = session.post("")
        self.assertEqual(response.status, 500)
        self.assertIn(b"Payload expected.", response.body)
        # None of them got through, and the session continues.
        session.send("a")
        self.assertEqual(session.packet(), 'a["a"]')

    def test_only_strings_are_messages(self):
        session = self.session().open()
        for data in ('{"a":"x"}', "[1]", '["a",1]', "[[]]", "null", '"x"x'):
            self.assertEqual(session.post(data).status, 500, data)
        session.send("a")
        self.assertEqual(session.packet(), 'a["a"]')

    def test_any_content_type(self):
        types = ("text/plain", "T", "application/json", "application/xml", "", "application/json; charset=utf-8", "text/xml")
        session = self.session().open()
        for value in types:
            response = self.ask("POST", f"{session.url}/xhr_send", [f"Content-Type: {value}"], b'["a"]')
            self.assertEqual((response.status, response.body), (204, b""), value)
        self.assertEqual(session.messages(len(types)), ["a"] * len(types))

    def test_headers_asked_for_are_allowed(self):
        asked = ["Origin: http://example.com", "Access-Control-Request-Method: POST"]
        for more, expect in (
            (["Access-Control-Request-Headers: a, b, c"], "a, b, c"),
            (["Access-Control-Request-Headers:"], None),
            ([], None),
        ):
            response = self.ask("OPTIONS", f"/echo/000/{uuid.uuid4().hex}/xhr", asked + more)
            self.assertIn(response.status, (200, 204))
            self.assert_cors(response, "http://example.com")
            self.assertEqual(response.headers.get("access-control-allow-headers") or None, expect)

    def test_sending_no_messages(self):
        session = self.session().open()
        session.send()
        session.send("a")
        self.assertEqual(session.packet(), 'a["a"]')

    def test_other_methods(self):
        for suffix in ("/xhr", "/xhr_send", "/xhr_streaming", "/jsonp_send"):
            self.assert_405(self.ask("GET", f"/echo/000/{uuid.uuid4().hex}{suffix}"), {"POST"})
        for suffix in ("/jsonp?c=x", "/eventsource", "/htmlfile?c=x"):
            self.assert_405(self.ask("POST", f"/echo/000/{uuid.uuid4().hex}{suffix}"), {"GET"})


class XhrStreaming(SockJsTest):
    def test_preflight(self):
        self.assert_preflight("/echo/abc/abc/xhr_streaming", ("OPTIONS", "POST"))

    def test_transport(self):
        session = self.session()
        stream = self.stream(session, headers=["Origin: http://example.com"])
        self.assertEqual(stream.status, 200)
        self.assert_type(stream, "application/javascript;charset=UTF-8")
        self.assert_cors(stream, "http://example.com")
        self.assert_not_cached(stream)
        self.assertEqual(stream.exactly(2049), XHR_PRELUDE)
        self.assertEqual(stream.exactly(2), b"o\n")
        session.send("x")
        self.assertEqual(stream.exactly(7), b'a["x"]\n')

    def test_response_limit(self):
        session = self.session()
        stream = self.stream(session)
        stream.exactly(2049)
        self.assertEqual(stream.exactly(2), b"o\n")
        message = "x" * 128
        for _ in range(31):
            session.send(message)
            self.assertEqual(stream.until(b"\n").decode(), f'a["{message}"]')
        self.assertEqual(stream.rest(), b"")
        self.assert_goes_on(session, "xhr_streaming")

    def assert_goes_on(self, session, transport):
        """The session outlives its stream, and messages sent between two streams are not lost."""
        session.send("between")
        again = self.stream(session, transport)
        if transport == "xhr_streaming":
            again.exactly(2049)
        elif transport == "eventsource":
            again.exactly(2)
        self.assertEqual(sockjs.next_packet(again, transport), b'a["between"]')


class EventSource(SockJsTest):
    def test_transport(self):
        session = self.session()
        stream = self.stream(session, "eventsource")
        self.assertEqual(stream.status, 200)
        # The event stream is UTF-8 by its definition; a charset would be taken, too.
        self.assertEqual(stream.headers["content-type"].split(";")[0], "text/event-stream")
        self.assert_not_cached(stream)
        self.assertEqual(stream.exactly(2), b"\r\n")
        self.assertEqual(stream.exactly(11), b"data: o\r\n\r\n")
        session.send("x")
        self.assertEqual(stream.until(b"\r\n\r\n"), b'data: a["x"]')

    def test_line_ends_and_other_controls_are_escaped(self):
        session = self.session()
        stream = self.stream(session, "eventsource")
        stream.until(b"data: o\r\n\r\n")
        response = session.post(r'["  \u0000\n\r "]')
        self.assertEqual((response.status, response.body), (204, b""))
        self.assertEqual(stream.until(b"\r\n\r\n"), rb'data: a["  \u0000\n\r "]')

    def test_percent_signs_are_escaped(self):
        session = self.session(transport="eventsource").open()
        session.send("100 % %0A %25")
        self.assertEqual(session.stream.until(b"\r\n\r\n"), b'data: a["100 %25 %250A %2525"]')

    def test_no_message_makes_an_event_of_its_own(self):
        session = self.session(transport="eventsource").open()
        evil = ["\n\ndata: c[3000,\"x\"]\n\n", "\r\revent: x", "\u2028id: 1\u2029", "\x0b\x0c\x85retry: 1"]
        session.send(*evil)
        self.assertEqual(session.messages(len(evil)), evil)

    def test_response_limit(self):
        session = self.session()
        stream = self.stream(session, "eventsource")
        self.assertEqual(stream.until(b"\r\n\r\n"), b"\r\ndata: o")
        session.send("x" * 4096)
        self.assertEqual(stream.until(b"\r\n\r\n").decode(), f'data: a["{"x" * 4096}"]')
        self.assertEqual(stream.rest(), b"")
        XhrStreaming.assert_goes_on(self, session, "eventsource")


class HtmlFile(SockJsTest):
    HEAD = (
        "<!doctype html>\n<html><head>\n"
        '  <meta http-equiv="X-UA-Compatible" content="IE=edge" />\n'
        '  <meta http-equiv="Content-Type" content="text/html; charset=UTF-8" />\n'
        "</head><body><h2>Don't panic!</h2>\n  <script>\n    document.domain = document.domain;\n"
        "    var c = parent.callback;\n    c.start();\n    function p(d) {c.message(d);};\n"
        "    window.onload = function() {c.stop();};\n  </script>"
    )

    def open(self, session):
        stream = Stream(self.server, "GET", f"{session.url}/htmlfile?c=%63allback")
        self.addCleanup(stream.close)
        return stream

    def test_transport(self):
        session = self.session()
        stream = self.open(session)
        self.assertEqual(stream.status, 200)
        self.assert_type(stream, "text/html;charset=UTF-8")
        self.assert_not_cached(stream)
        head = stream.until(b'<script>\np("o");\n</script>\r\n')
        self.assertEqual(head.decode().strip(), self.HEAD)
        # Old browsers hold back shorter responses.
        self.assertGreater(len(head), 1024)
        session.send("x")
        self.assertEqual(stream.until(b"</script>\r\n"), b'<script>\np("a[\\"x\\"]");\n')

    def test_no_callback(self):
        for query in ("", "?x=c"):
            response = self.ask("GET", f"/echo/a/a/htmlfile{query}")
            self.assertEqual(response.status, 500, query)
            self.assertIn(b'"callback" parameter required', response.body)
        self.assertEqual(self.ask("GET", "/echo/a/a/htmlfile?c=").status, 500)

    def test_bad_callbacks(self):
        for callback in ("%20", "*", "abc(", "abc%28", "%22", "a%3Cb", "%C3%A9", "a%0Ab", "a%00"):
            response = self.ask("GET", f"/echo/a/a/htmlfile?c={callback}")
            self.assertEqual(response.status, 500, callback)
            self.assertIn(b'invalid "callback" parameter', response.body)

    def test_no_message_ends_the_script(self):
        session = self.session(transport="htmlfile").open()
        stream = session.stream
        evil = "</script><script>alert(1)</script><!--"
        session.send(evil)
        body = stream.until(b");\n</script>\r\n")
        for mark in (b"</script", b"<script>alert", b"<!--"):
            self.assertNotIn(mark, body.lower())
        self.assertEqual(json.loads(json.loads(body.removeprefix(b"<script>\np("))[1:]), [evil])

    def test_response_limit(self):
        session = self.session()
        stream = self.open(session)
        stream.until(b'<script>\np("o");\n</script>\r\n')
        session.send("x" * 4096)
        expect = f'<script>\np("a[\\"{"x" * 4096}\\"]");\n'
        self.assertEqual(stream.until(b"</script>\r\n").decode(), expect)
        self.assertEqual(stream.rest(), b"")
        XhrStreaming.assert_goes_on(self, session, "htmlfile")


class JsonpPolling(SockJsTest):
    def post(self, session, body, content=FORM):
        return self.ask("POST", f"{session.url}/jsonp_send", [content], body)

    def poll(self, session, callback="x"):
        response = self.ask("GET", f"{session.url}/jsonp?c={callback}")
        self.assertEqual(response.status, 200)
        return response

    def test_transport(self):
        session = self.session()
        response = self.poll(session, "%63allback")
        self.assert_type(response, "application/javascript;charset=UTF-8")
        self.assert_not_cached(response)
        self.assertEqual(response.body, b'/**/callback("o");\r\n')
        response = self.post(session, b"d=%5B%22x%22%5D")
        self.assertEqual((response.status, response.body), (200, b"ok"))
        self.assert_type(response, "text/plain;charset=UTF-8")
        self.assert_not_cached(response)
        self.assertEqual(self.poll(session, "%63allback").body, b'/**/callback("a[\\"x\\"]");\r\n')

    def test_no_callback(self):
        for query in ("", "?x=c"):
            response = self.ask("GET", f"/echo/a/a/jsonp{query}")
            self.assertEqual(response.status, 500, query)
            self.assertIn(b'"callback" parameter required', response.body)
        self.assertEqual(self.ask("GET", "/echo/a/a/jsonp?c=").status, 500)

    def test_bad_callbacks(self):
        for callback in ("%20", "*", "abc(", "abc%28", "a;b", "a/b", "%2F%2F", "%E2%80%A8"):
            response = self.ask("GET", f"/echo/a/a/jsonp?c={callback}")
            self.assertEqual(response.status, 500, callback)
            self.assertIn(b'invalid "callback" parameter', response.body)

    def test_bad_json(self):
        session = self.session(transport="jsonp").open()
        response = self.post(session, b"d=%5B%22x")
        self.assertEqual(response.status, 500)
        self.assertIn(b"Broken JSON encoding.", response.body)
        for body in (b"", b"d=", b"p=p"):
            response = self.post(session, body)
            self.assertEqual(response.status, 500, body)
            self.assertIn(b"Payload expected.", response.body)
        self.assertEqual(self.post(session, b"d=%5B%22b%22%5D").body, b"ok")
        self.assertEqual(self.poll(session).body, b'/**/x("a[\\"b\\"]");\r\n')

    def test_a_form_and_plain_text(self):
        session = self.session(transport="jsonp").open()
        self.assertEqual(self.post(session, b"d=%5B%22abc%22%5D").body, b"ok")
        self.assertEqual(self.post(session, b'["%61bc"]', "Content-Type: text/plain").body, b"ok")
        self.assertEqual(self.poll(session).body, b'/**/x("a[\\"abc\\",\\"%61bc\\"]");\r\n')

    def test_a_form_with_a_charset_and_plus_signs(self):
        session = self.session(transport="jsonp").open()
        self.assertEqual(self.post(session, b"p=p&d=%5B%22a+b%2Bc%22%5D", FORM + "; charset=UTF-8").body, b"ok")
        self.assertEqual(session.messages(1), ["a b+c"])

    def test_closed_by_the_server(self):
        session = self.session("/close")
        self.assertEqual(self.poll(session).body, b'/**/x("o");\r\n')
        for _ in range(2):
            self.assertEqual(self.poll(session).body, b'/**/x("c[3000,\\"Go away!\\"]");\r\n')

    def test_sending_no_messages(self):
        session = self.session(transport="jsonp").open()
        for body in (b"d=%5B%5D", b"d=%5B%22x%22%5D"):
            self.assertEqual(self.post(session, body).body, b"ok")
        self.assertEqual(self.poll(session).body, b'/**/x("a[\\"x\\"]");\r\n')

    def test_line_separators_do_not_end_the_string(self):
        # In old JavaScript they end a string literal, as a line feed does.
        session = self.session(transport="jsonp").open()
        session.send("a\u2028b\u2029c")
        body = self.poll(session).body
        self.assertTrue(body.isascii(), body)
        self.assertEqual(json.loads(json.loads(body[len("/**/x(") : -len(");\r\n")])[1:]), ["a\u2028b\u2029c"])


class Cookie(SockJsTest):
    def assert_cookie(self, response, value="dummy"):
        cookie, *attributes = response.headers["set-cookie"].split(";")
        self.assertEqual(cookie.strip(), f"JSESSIONID={value}")
        self.assertEqual(attributes[0].strip().lower(), "path=/")

    def test_every_transport_sets_it(self):
        for transport in STREAMING:
            self.assert_cookie(self.stream(self.session("/cookie_needed_echo"), transport))
        for method, suffix in (sockjs.RECEIVE["xhr"], sockjs.RECEIVE["jsonp"]):
            self.assert_cookie(self.ask(method, self.session("/cookie_needed_echo").url + suffix))

    def test_sending_sets_it(self):
        for transport in ("xhr", "jsonp"):
            session = self.session("/cookie_needed_echo", transport).open()
            self.assert_cookie(session.post('["x"]'))

    def test_one_that_came_is_echoed(self):
        for line, value in (
            ("JSESSIONID=abcdef", "abcdef"),
            ("a=b; JSESSIONID=node-1.xyz; c=d", "node-1.xyz"),
            ("XJSESSIONID=no; a=JSESSIONID", "dummy"),
        ):
            session = self.session("/cookie_needed_echo")
            response = self.ask("POST", f"{session.url}/xhr", [f"Cookie: {line}"])
            self.assertEqual((response.status, response.body), (200, b"o\n"))
            self.assert_cookie(response, value)

    def test_none_where_none_is_needed(self):
        for transport in STREAMING:
            self.assertNotIn("set-cookie", self.stream(self.session(), transport).headers)
        self.assertNotIn("set-cookie", self.ask("POST", f"{self.session().url}/xhr", ["Cookie: JSESSIONID=a"]).headers)


class RawWebSocket(SockJsTest):
    def test_transport(self):
        connection = self.websocket("/echo/websocket")
        text = "Hello world!\uffff".encode()
        connection.send(packet(TEXT, text))
        self.assertEqual(connection.receive(), (TEXT, text))

    def test_closed_by_the_server(self):
        closed = self.assert_no_more(self.websocket("/close/websocket"))
        self.assertEqual((closed.code, closed.reason), (3000, "Go away!"))

    def test_packets_of_sockjs_are_plain_messages(self):
        connection = self.websocket("/echo/websocket")
        for data in (b'["a"]', b"[]", b'["a'):
            connection.send(packet(TEXT, data))
            self.assertEqual(connection.receive(), (TEXT, data))

    def test_switched_off(self):
        with Http(self.server) as connection:
            connection.send(raw.handshake("/disabled_websocket_echo/websocket"))
            self.assertEqual(connection.response().status, 404)


class Encoding(SockJsTest):
    # Characters that the client escapes by itself: all that some browser, proxy or transport is known to spoil.
    BY_CLIENT = (
        r'[\\"\x00-\x1f\x7f-\x9f\u00ad\u0300-\u0374\u037e\u0387\u0591-\u065f\u06d6-\u06ed\u070f\u0730-\u074a\u07eb-\u07f3'
        r"\u0951-\u0f93\u17b4\u17b5\u1939-\u193a\u1a17\u1b6b\u1cda-\u1cdb\u1dc0-\u1dff\u1f71-\u1fff\u2000-\u20ff\u2126"
        r"\u212a-\u212b\u2329-\u232a\u2adc\u302b-\u302c\uaab2-\uaab3\uf900-\ufb4e\ufeff\ufff0-\uffff]"
    )
    # Characters that a server must escape on every transport.
    BY_SERVER = r"[\x00-\x1f\u200c-\u200f\u2028-\u202f\u2060-\u206f\ufff0-\uffff]"

    def matching(self, pattern):
        return "".join(chr(code) for code in range(0x10000) if re.match(pattern, chr(code)))

    def test_the_server_escapes(self):
        killers = "".join(char for char in self.matching(self.BY_SERVER) if ord(char) > 0xFF)
        session = self.session().open()
        self.assertEqual(session.post(f'["{killers}"]').status, 204)
        expect = "".join(f"\\u{ord(char):04x}" for char in killers)
        self.assertEqual(session.packet(), f'a["{expect}"]')

    def test_the_server_escapes_on_every_transport(self):
        killers = self.matching(self.BY_SERVER)
        for transport in sockjs.TRANSPORTS:
            session = self.session(transport=transport).open()
            session.send(killers)
            got = session.packet()
            self.assertNotRegex(got, self.BY_SERVER, transport)
            self.assertEqual(json.loads(got[1:]), [killers], transport)

    def test_the_server_reads_escapes(self):
        killers = self.matching(self.BY_CLIENT)
        session = self.session().open()
        escaped = "".join(f"\\u{ord(char):04x}" for char in killers)
        self.assertEqual(session.post(f'["{escaped}"]').status, 204)
        self.assertEqual(session.messages(1), [killers])

    def test_every_character_goes_through(self):
        everything = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
        slices = [everything[at : at + 20_000] for at in range(0, len(everything), 20_000)]
        for transport in ("xhr_streaming", "websocket"):
            session = self.session(transport=transport).open()
            for part in slices[:6] + slices[-1:]:
                session.send(part)
                self.assertEqual(session.message(), part, transport)

    def test_surrogates_in_pairs(self):
        session = self.session().open()
        for escaped, expect in ((r"\ud83c\udf89", "\U0001f389"), (r"\uD800\uDC00", "\U00010000"), (r"\udbff\udfff", "\U0010ffff")):
            self.assertEqual(session.post(f'["{escaped}"]').status, 204)
            self.assertEqual(session.messages(1), [expect])

    def test_lone_surrogates(self):
        # JavaScript's strings may hold them; UTF-8 cannot. They come back unchanged, escaped, or replaced.
        session = self.session().open()
        for escaped in (r"\ud800", r"\udc00", r"a\udfffb", r"\ud83c\ud83c\udf89", r"\udf89\ud83c"):
            self.assertEqual(session.post(f'["{escaped}"]').status, 204)
            (got,) = session.messages(1)
            as_it_was = json.loads(f'"{escaped}"')
            replaced = re.sub("[\ud800-\udfff]", "\ufffd", as_it_was)
            self.assertIn(got, (as_it_was, replaced), escaped)
        session = self.session(transport="websocket").open()
        session.websocket.send(packet(TEXT, rb'["\ud800"]'))
        opcode, payload = session.websocket.receive()
        self.assertEqual(opcode, TEXT)
        payload.decode()

    def test_invalid_utf_8_is_refused(self):
        session = self.session().open()
        for data in (b'["\xff"]', b'["\xed\xa0\x80"]', b'["\xc0\x80"]'):
            self.assertEqual(session.post(data).status, 500, data)
        session.send("a")
        self.assertEqual(session.packet(), 'a["a"]')


class Closing(SockJsTest):
    def begin(self, session):
        stream = self.stream(session)
        stream.exactly(2049)
        return stream

    def test_a_closed_session_says_so_to_everybody(self):
        session = self.session("/close")
        first = self.begin(session)
        self.assertEqual(first.until(b"\n"), b"o")
        self.assertEqual(first.until(b"\n").decode(), GO_AWAY)
        second = self.begin(session)
        self.assertEqual(second.until(b"\n").decode(), GO_AWAY)
        self.assertEqual((first.rest(), second.rest()), (b"", b""))

    def test_a_second_stream(self):
        session = self.session()
        first = self.begin(session)
        self.assertEqual(first.until(b"\n"), b"o")
        second = self.begin(session)
        self.assertEqual(second.until(b"\n").decode(), STILL_OPEN)
        self.assertEqual(second.rest(), b"")
        session.send("a")
        self.assertEqual(first.until(b"\n"), b'a["a"]')

    def test_a_stream_that_the_client_aborts_ends_the_session(self):
        session = self.session()
        first = self.begin(session)
        self.assertEqual(first.until(b"\n"), b"o")
        first.close()
        self.assert_ended(session)

    def test_a_poll_that_the_client_aborts_ends_the_session(self):
        session = self.session().open()
        poll = Http(self.server)
        Protocol.poll_and_wait(self, poll, session)
        second = self.ask("POST", f"{session.url}/xhr")
        self.assertEqual(second.body.decode().strip(), STILL_OPEN)
        poll.close()
        self.assert_ended(session)

    def assert_ended(self, session):
        """Long before its five seconds: a send finds no session, and a new receiver finds a new one or its end."""
        began = time.monotonic()
        while session.post("[]").status != 404:
            self.assertLess(time.monotonic() - began, 2)
            time.sleep(0.02)
        again = self.ask("POST", f"{session.url}/xhr").body
        self.assertIn(again, (b"o\n", b'c[1002,"Connection interrupted"]\n'))


class Http10(SockJsTest):
    def request(self, connection, line):
        connection.send(f"{line} HTTP/1.0\r\nHost: localhost\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n".encode())
        return connection.head()

    def test_a_simple_response(self):
        connection = Http(self.server)
        self.addCleanup(connection.close)
        status, headers = self.request(connection, "GET /echo")
        self.assertEqual(status, 200)
        self.assertNotIn("transfer-encoding", headers)
        if "content-length" not in headers:
            self.assertEqual(headers["connection"].lower(), "close")
            self.assertEqual(connection.at_end(), b"Welcome to SockJS!\n")
            return
        self.assertEqual(headers["content-length"], "19")
        self.assertEqual(connection.read_exactly(19), b"Welcome to SockJS!\n")
        if headers.get("connection", "close").lower() == "close":
            self.assertEqual(connection.at_end(), b"")
            return
        self.assertEqual(headers["connection"].lower(), "keep-alive")
        self.assertEqual(self.request(connection, "GET /echo")[0], 200)

    def test_a_stream_goes_to_the_end_of_the_connection(self):
        session = self.session("/close")
        connection = Http(self.server)
        self.addCleanup(connection.close)
        status, headers = self.request(connection, f"POST {session.url}/xhr_streaming")
        self.assertEqual(status, 200)
        self.assertNotIn("transfer-encoding", headers)
        self.assertNotIn("content-length", headers)
        self.assertEqual(connection.at_end(), XHR_PRELUDE + b"o\n" + GO_AWAY.encode() + b"\n")


class Http11(SockJsTest):
    def test_a_simple_response(self):
        connection = Http(self.server)
        self.addCleanup(connection.close)
        for _ in range(3):
            response = connection.ask("GET", "/echo", ["Connection: Keep-Alive"])
            self.assertEqual((response.status, response.body), (200, b"Welcome to SockJS!\n"))
            self.assertIn(response.headers.get("connection", "").lower(), ("", "keep-alive"))
            self.assertNotEqual("content-length" in response.headers, "transfer-encoding" in response.headers)

    def test_a_stream_comes_in_chunks(self):
        session = self.session("/close")
        stream = self.stream(session, headers=["Connection: Keep-Alive"])
        self.assertEqual((stream.status, stream.headers["transfer-encoding"].lower()), (200, "chunked"))
        self.assertNotIn("content-length", stream.headers)
        self.assertEqual(stream.rest(), XHR_PRELUDE + b"o\n" + GO_AWAY.encode() + b"\n")
        # The last chunk ends the response, and the connection is free for the next request if it was kept.
        if stream.headers.get("connection", "").lower() != "close":
            self.assertEqual(stream.ask("GET", "/echo").status, 200)


class Services(SockJsTest):
    """Further promises of `examples/conformance` to suites."""

    def test_amplify(self):
        session = self.session("/amplify", "xhr_streaming").open()
        for number in (1, 10, 17, 20):
            session.send(str(number))
            self.assertEqual(session.message(), "x" * 2**number, number)

    def test_the_plain_websocket(self):
        connection = self.websocket("/ws-echo")
        connection.socket.settimeout(30)
        for opcode, data in ((TEXT, "é🎉".encode()), (BINARY, bytes(range(256))), (TEXT, b""), (BINARY, b"x" * (1 << 24))):
            connection.send(packet(opcode, data))
            self.assertEqual(self.whole(connection), (opcode, data))
        fragments = [packet(0 if at else TEXT, b"ab", fin=at == 9_999) for at in range(10_000)]
        connection.send(b"".join(fragments))
        self.assertEqual(self.whole(connection), (TEXT, b"ab" * 10_000))
        connection.send(packet(CLOSE, struct.pack(">H", 1000)))
        self.assertEqual(self.assert_no_more(connection).code, 1000)

    def whole(self, connection):
        """A message that may come in fragments: one packet here, as the server writes it."""
        return connection.receive()

    def test_any_method_at_the_root(self):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            body = b"" if method == "GET" else b"body of " + method.encode()
            response = self.ask(method, "/", body=body)
            self.assertEqual((response.status, response.body), (200, body), method)


class Table(unittest.TestCase):
    def test_it_names_exactly_the_existing_tests(self):
        """Every test that docs/sockjs.md names exists, and every test has its line."""
        page = (ROOT / "docs/sockjs.md").read_text()
        elsewhere = set(re.findall(r"`(\w+\.test_\w+)` of `test_sockjs_stomp.py`", page))
        promised = set(re.findall(r"`(\w+\.test_\w+)`", page)) - elsewhere
        found = names(__name__) - {"Table.test_it_names_exactly_the_existing_tests"}
        self.assertEqual(promised - found, set(), "named, but missing")
        self.assertEqual(found - promised, set(), "without a line in docs/sockjs.md")
        self.assertLessEqual(elsewhere, names("test_sockjs_stomp"))


def names(module):
    groups = unittest.defaultTestLoader.loadTestsFromName(module)
    return {test.id().removeprefix(f"{module}.") for group in groups for test in group}


if __name__ == "__main__":
    unittest.main()
