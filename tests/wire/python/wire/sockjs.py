"""SockJS (protocol 0.3.3) by hand: the actions of its browser client, over each transport."""

import json
import urllib.parse
import uuid

from wire import raw
from wire.raw import PING, PONG, Closed, Http, WebSocket

STREAMING = ("xhr_streaming", "eventsource", "htmlfile")
POLLING = ("xhr", "jsonp")
HTTP_TRANSPORTS = STREAMING + POLLING
TRANSPORTS = HTTP_TRANSPORTS + ("websocket",)

# The method with which a transport receives, and its path and query.
RECEIVE = {
    "xhr": ("POST", "/xhr"),
    "xhr_streaming": ("POST", "/xhr_streaming"),
    "eventsource": ("GET", "/eventsource"),
    "htmlfile": ("GET", "/htmlfile?c=_jp.a1"),
    "jsonp": ("GET", "/jsonp?c=_jp.a1"),
}
XHR_PRELUDE = b"h" * 2048 + b"\n"
FORM = "Content-Type: application/x-www-form-urlencoded"


class Stream(Http):
    """A request, and its response as it comes in: in chunks, or to the end of the connection for HTTP/1.0."""

    def __init__(self, server, method, path, headers=(), body=b"", version="1.1", **options):
        super().__init__(server, **options)
        lines = [f"{method} {path} HTTP/{version}", f"Host: localhost:{server.port}", *headers]
        if body or method == "POST":
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        self.status, self.headers = self.head()
        self.chunked = self.headers.get("transfer-encoding", "").lower() == "chunked"
        self.decoded, self.ended = b"", False

    def piece(self):
        """Reads one more piece of the body; False at its end."""
        if self.ended:
            return False
        if self.chunked:
            piece = self.chunk()
        else:
            if not self.buffer:
                self.fill()
            piece, self.buffer = self.buffer, b""
        self.decoded += piece
        self.ended = not piece
        return not self.ended

    def exactly(self, size):
        """The next bytes of the body."""
        while len(self.decoded) < size:
            if not self.piece():
                raise EOFError(self.decoded)
        data, self.decoded = self.decoded[:size], self.decoded[size:]
        return data

    def until(self, mark):
        """The bytes before the mark, which is consumed too."""
        while mark not in self.decoded:
            if not self.piece():
                raise EOFError(self.decoded)
        head, self.decoded = self.decoded.split(mark, 1)
        return head

    def rest(self):
        """The bytes before the end of the body, which the server must send."""
        while self.piece():
            pass
        data, self.decoded = self.decoded, b""
        return data


def receive(server, url, transport, headers=()):
    """Opens a stream of a streaming transport; the prelude is left unread."""
    method, suffix = RECEIVE[transport]
    return Stream(server, method, join(url, suffix), headers)


def join(url, suffix):
    """Puts a suffix with a query after a URL's path, before the URL's own query."""
    path, _, query = url.partition("?")
    suffix, _, more = suffix.partition("?")
    query = "&".join(part for part in (query, more) if part)
    return path + suffix + (f"?{query}" if query else "")


def next_packet(stream, transport):
    """The next packet of a stream after its prelude, without the transport's framing."""
    if transport == "xhr_streaming":
        return stream.until(b"\n")
    if transport == "eventsource":
        data = stream.until(b"\r\n\r\n")
        assert data.startswith(b"data: "), data
        # The client decodes the data, and fails at a percent sign that is no escape.
        assert data.count(b"%") == data.count(b"%25"), data
        return data[6:].replace(b"%25", b"%")
    stream.until(b"<script>\np(")
    return json.loads(stream.until(b");\n</script>\r\n")).encode()


class Session:
    """A SockJS session over one transport. `streams` counts the receiving requests."""

    def __init__(self, server, base="/echo", transport="xhr", token=None, session=None, headers=()):
        self.server, self.transport, self.headers = server, transport, headers
        self.id = session or uuid.uuid4().hex
        self.url = f"{base}/000/{self.id}" + (f"?token={token}" if token else "")
        self.sender, self.stream, self.poller, self.websocket = None, None, None, None
        self.streams, self.queue = 0, []

    def open(self):
        """Opens the session, through its open packet."""
        if self.transport == "websocket":
            self.websocket = WebSocket.open(self.server, headers=self.headers, path=join(self.url, "/websocket"))
        packet = self.packet()
        assert packet == "o", packet
        return self

    def close(self):
        """Hangs up, as a browser that is closed."""
        for connection in (self.sender, self.stream, self.poller, self.websocket):
            if connection:
                connection.close()

    def packet(self):
        """The next packet as text: `o`, `h`, `a[...]` or `c[...]`."""
        if self.transport == "websocket":
            return self.packet_websocket()
        return (self.packet_polled() if self.transport in POLLING else self.packet_streamed()).decode()

    def packet_websocket(self):
        while True:
            opcode, payload = self.websocket.receive()
            if opcode == PING:
                self.websocket.send(raw.packet(PONG, payload))
            elif opcode == raw.TEXT:
                return payload.decode()

    def packet_polled(self):
        self.poller = self.poller or Http(self.server)
        method, suffix = RECEIVE[self.transport]
        self.streams += 1
        response = self.poller.ask(method, join(self.url, suffix), self.headers)
        assert response.status == 200, (response.status, response.body)
        body = response.body
        if self.transport == "jsonp":
            assert body.startswith(b"/**/_jp.a1(") and body.endswith(b");\r\n"), body
            return json.loads(body[11:-4]).encode()
        assert body.endswith(b"\n"), body
        return body[:-1]

    def packet_streamed(self):
        while True:
            if not self.stream:
                self.begin_stream()
            try:
                return next_packet(self.stream, self.transport)
            except EOFError as rest:
                # The server ends a stream at its limit; the client opens the next.
                assert self.stream.ended and not rest.args[0], rest.args[0]
                self.stream.close()
                self.stream = None

    def begin_stream(self):
        self.stream = receive(self.server, self.url, self.transport, self.headers)
        self.streams += 1
        assert self.stream.status == 200, self.stream.status
        if self.transport == "xhr_streaming":
            assert self.stream.exactly(len(XHR_PRELUDE)) == XHR_PRELUDE
        elif self.transport == "eventsource":
            assert self.stream.exactly(2) == b"\r\n"

    def message(self):
        """The next message; the server's heart-beats are skipped."""
        while not self.queue:
            packet = self.packet()
            if packet.startswith("c"):
                raise Closed(*json.loads(packet[1:]))
            assert packet[0] in "ah", packet
            self.queue = json.loads(packet[1:]) if packet[0] == "a" else []
        return self.queue.pop(0)

    def messages(self, count):
        return [self.message() for _ in range(count)]

    def send(self, *messages):
        """Sends messages, and checks that the server accepted them."""
        data = json.dumps(messages)
        if self.transport == "websocket":
            self.websocket.send(raw.packet(raw.TEXT, data.encode()))
            return
        response = self.post(data)
        expect = (200, b"ok") if self.transport == "jsonp" else (204, b"")
        assert (response.status, response.body) == expect, (response.status, response.body)

    def post(self, data):
        """Sends a body unchanged, over the connection of all sends: (status, headers, body)."""
        self.sender = self.sender or Http(self.server)
        data = data.encode() if isinstance(data, str) else data
        if self.transport == "jsonp":
            body = b"d=" + urllib.parse.quote(data).encode()
            return self.sender.ask("POST", join(self.url, "/jsonp_send"), [FORM, *self.headers], body)
        return self.sender.ask("POST", join(self.url, "/xhr_send"), ["Content-Type: text/plain", *self.headers], data)


class Stomp(Session):
    """STOMP over SockJS. The server's frames come one to a message."""

    @classmethod
    def connect(cls, server, token, transport="xhr", base="/ws", beats="0,0", **options):
        session = cls(server, base, transport, token, **options).open()
        session.say(f"CONNECT\naccept-version:1.2\nhost:tidings\nheart-beat:{beats}\n\n\0")
        session.connected = session.expect("CONNECTED")
        return session

    def say(self, text):
        self.send(text)

    def frame(self):
        """The next STOMP frame; heart-beats are skipped."""
        while True:
            message = self.message()
            if message.strip("\r\n"):
                assert message.rstrip("\n").endswith("\0"), message
                return raw.Frame(message.strip("\n")[:-1].encode())

    expect = raw.Stomp.expect
    subscribe = raw.Stomp.subscribe
