"""Every transport through nginx and haproxy, under the configurations of deploy/ and under their defaults."""

import subprocess
import time
import unittest

from wire import raw, sockjs
from wire.case import WireTest
from wire.proxy import BareHaProxy, BareNginx, HaProxy, Nginx
from wire.raw import Http
from wire.server import ROOT, mint, users
from wire.sockjs import HTTP_TRANSPORTS, STREAMING, TRANSPORTS, Stomp

# Transports of npm sockjs-client in node.
CLIENT_TRANSPORTS = ("websocket", "xhr-streaming", "eventsource", "xhr-polling")
ALIVE = "SEND\ndestination:/app/heartbeat\nreceipt:alive\n\n\0"


class ProxyTest(WireTest):
    proxy_type = None
    # Changes to the proxy's configuration.
    changes = {}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.proxy = cls.proxy_type(cls.server, cls.changes)
        cls.addClassCleanup(cls.proxy.stop)

    def connect(self, transport):
        """(a STOMP session through the proxy, its user)."""
        (user,) = users(1)
        session = Stomp.connect(self.proxy, mint(user), transport)
        self.addCleanup(session.close)
        return session, user

    def assert_alive(self, session):
        session.say(ALIVE)
        self.assertEqual(session.expect("RECEIPT").headers["receipt-id"], "alive")

    def assert_messages_both_ways(self, transport, large=80):
        """Messages arrive while their stream is open, `large` ones over several streams; none is lost."""
        session, bob = self.connect(transport)
        (alice,) = users(1)
        conversation = self.server.conversation(alice, bob)
        session.subscribe("/user/queue/messages")
        for _ in range(3):
            stored = self.server.post(alice, conversation, "a word")
            self.assertEqual(session.expect("MESSAGE").json(), stored)
            self.assert_alive(session)
        for number in range(large):
            stored = self.server.post(alice, conversation, f"{number} {'x' * 3_900}")
            self.assertEqual(session.expect("MESSAGE").json(), stored)
        if transport in STREAMING:
            self.assertEqual(session.streams, 1 + large * 4_100 // (128 * 1024))

    def client(self, transports, count=50):
        """The transport that npm sockjs-client used for `count` messages to itself."""
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        url = f"http://127.0.0.1:{self.proxy.port}/ws?token={mint(alice)}#{conversation}"
        command = ["node", str(ROOT / "tests/wire/js/proxied.js"), url, transports, str(count)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()


class Configured:
    """Checks for each proxy under its configuration of deploy/."""

    def test_every_transport(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                self.assert_messages_both_ways(transport)

    def test_the_real_client_with_every_transport(self):
        for transport in CLIENT_TRANSPORTS:
            with self.subTest(transport):
                self.assertEqual(self.client(transport), transport)

    def test_the_real_client_takes_the_best(self):
        self.assertEqual(self.client("any"), "websocket")

    def test_a_plain_websocket(self):
        (user,) = users(1)
        for path in ("/ws", "/ws/websocket"):
            with raw.Stomp.open(self.proxy, mint(user), path=path) as session:
                session.say("CONNECT\naccept-version:1.2\nhost:x\n\n\0")
                session.expect("CONNECTED")
                session.say(ALIVE)
                session.expect("RECEIPT")

    def test_rest(self):
        alice, bob = users(2)
        conversation = self.server.conversation(alice, bob)
        with Http(self.proxy) as connection:
            for number in range(3):
                route = f"/conversations/{conversation}/messages"
                headers = [f"Authorization: Bearer {mint(alice)}", "Content-Type: application/json"]
                response = connection.ask("POST", route, headers, b'{"content":"number %d"}' % number)
                self.assertEqual(response.status, 201)
        self.assertEqual([message["content"] for message in self.server.history(bob, conversation)], ["number 0", "number 1", "number 2"])

    def test_no_token_in_the_log(self):
        token = mint(users(1)[0])
        marker = "/nowhere/to/be/logged"
        with Http(self.proxy) as connection:
            connection.ask("GET", f"{marker}?token={token}")
        deadline = time.monotonic() + 5
        while marker not in (log := self.proxy.log.read_text()):
            self.assertLess(time.monotonic(), deadline, "the request was not logged")
            time.sleep(0.05)
        self.assertNotIn(token.rsplit(".", 1)[-1], log)
        self.assertNotIn("token=", log)


class ConfiguredNginx(Configured, ProxyTest):
    proxy_type = Nginx


class ConfiguredHaProxy(Configured, ProxyTest):
    proxy_type = HaProxy


class OwnOrigin:
    """A page of the proxy's own address needs no entry in `cors.origins`: the proxy passes on the requested host."""

    settings = {"cors.origins": ""}

    def test_it_is_allowed_and_others_are_not(self):
        host = f"127.0.0.1:{self.proxy.port}"
        for origin, status in ((f"http://{host}", 200), ("http://evil.example", 403)):
            with Http(self.proxy) as connection:
                connection.request("GET", "/ws/info", [f"Origin: {origin}"], host=host)
                self.assertEqual(connection.response().status, status, origin)


class OwnOriginNginx(OwnOrigin, ProxyTest):
    proxy_type = Nginx


class OwnOriginHaProxy(OwnOrigin, ProxyTest):
    proxy_type = HaProxy


class HangUp:
    """A browser that is closed: its session ends with its stream or poll."""

    within = 0

    def test_a_client_that_hangs_up_is_noticed(self):
        sessions = [self.connect(transport)[0] for transport in HTTP_TRANSPORTS]
        for session in sessions:
            if session.transport not in STREAMING:
                method, suffix = sockjs.RECEIVE[session.transport]
                session.poller.request(method, sockjs.join(session.url, suffix))
        # The server can only notice the end of a request that has reached it.
        time.sleep(0.3)
        began = time.monotonic()
        for session in sessions:
            (session.stream or session.poller).close()
        for session in sessions:
            while session.post("[]").status != 404:
                self.assertLess(time.monotonic() - began, self.within, session.transport)
                time.sleep(0.05)


class HangUpNginx(HangUp, ProxyTest):
    proxy_type = Nginx
    within = 2


class HangUpHaProxy(HangUp, ProxyTest):
    """haproxy checks a client that waits for a response only when it has something to write. The first heart-beat is
    answered by a reset, and the second finds the connection gone; a poll ends with the first, and the client sends no other."""

    settings = {"limits.ping": "1s"}
    proxy_type = HaProxy
    within = 2 + 5 + 1


class Idle:
    """The time-outs of deploy/ are three heart-beats long. Here both are shorter: 1 s for a heart-beat, 3 s for the proxy."""

    settings = {"limits.ping": "1s"}

    def test_heart_beats_hold_every_transport_open(self):
        sessions = [self.connect(transport)[0] for transport in TRANSPORTS]
        for session in sessions:
            (session.stream or session.websocket or Http(self.proxy)).socket.settimeout(20)
        # Each receives as a client does, for longer than the proxy waits.
        began = time.monotonic()
        while time.monotonic() - began < 5:
            for session in sessions:
                self.assertEqual(session.packet(), "h", session.transport)
        for session in sessions:
            # A connection between two requests may have been closed. A browser opens another.
            session.sender = None
            self.assert_alive(session)
            if session.transport in STREAMING:
                self.assertEqual(session.streams, 1, session.transport)


class IdleNginx(Idle, ProxyTest):
    proxy_type = Nginx
    changes = {r"timeout 75s": "timeout 3s"}


class IdleHaProxy(Idle, ProxyTest):
    proxy_type = HaProxy
    changes = {r"(timeout (?:client|server|tunnel)) 75s": r"\1 3s"}


class DefaultNginx(ProxyTest):
    """nginx with only `proxy_pass`: the transports that work without further configuration."""

    proxy_type = BareNginx

    def test_streams_and_polls(self):
        for transport in HTTP_TRANSPORTS:
            with self.subTest(transport):
                self.assert_messages_both_ways(transport)

    def test_the_real_client_falls_back(self):
        self.assertEqual(self.client("any"), "xhr-streaming")

    def test_no_websocket_gets_through(self):
        with Http(self.proxy) as connection:
            connection.send(raw.handshake("/ws/websocket"))
            self.assertEqual(connection.response().status, 426)


class DefaultHaProxy(ProxyTest):
    """haproxy with only addresses and time-outs."""

    proxy_type = BareHaProxy

    def test_every_transport(self):
        for transport in TRANSPORTS:
            with self.subTest(transport):
                self.assert_messages_both_ways(transport, large=5)

    def test_the_real_client_takes_the_best(self):
        self.assertEqual(self.client("any"), "websocket")


if __name__ == "__main__":
    unittest.main()
