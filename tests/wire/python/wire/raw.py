"""HTTP, WebSocket and STOMP by hand over a socket, so that a test can send what no client would."""

import base64
import json
import os
import socket
import struct

TIMEOUT = 8.0
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Connection:
    """A TCP connection with the bytes read ahead."""

    def __init__(self, server, timeout=TIMEOUT, receive_buffer=None):
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(timeout)
        self.socket.connect(("127.0.0.1", server.port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        self.socket.sendall(data)

    def try_send(self, data):
        """Sends as much as the server accepts before it hangs up; returns whether it accepted all."""
        try:
            self.socket.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def fill(self):
        """Reads more; False at the end of the stream."""
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        self.buffer += data
        return bool(data)

    def read_until(self, mark):
        while mark not in self.buffer:
            if not self.fill():
                raise EOFError(self.buffer)
        head, self.buffer = self.buffer.split(mark, 1)
        return head

    def read_exactly(self, size):
        while len(self.buffer) < size:
            if not self.fill():
                raise EOFError(self.buffer)
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def at_end(self):
        """Reads until the server has closed; returns the bytes before that."""
        while self.fill():
            pass
        rest, self.buffer = self.buffer, b""
        return rest


class Response:
    def __init__(self, status, headers, body):
        self.status = status
        self.headers = headers
        self.body = body

    def json(self):
        return json.loads(self.body)


class Http(Connection):
    """HTTP/1.1 by hand."""

    def request(self, method, path, headers=(), body=b"", host="localhost"):
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def response(self, to_head=False):
        """The next response; `to_head`: it answers a HEAD, so it has no body."""
        status, headers = self.head()
        body = b""
        if not to_head and status >= 200 and status not in (204, 304):
            body = self.body(headers)
        return Response(status, headers, body)

    def head(self):
        """(status, headers) of the next response, the body left unread."""
        head = self.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        assert head[0].startswith("HTTP/1.1 "), head[0]
        status = int(head[0].split()[1])
        headers = {}
        for line in head[1:]:
            name, value = line.split(":", 1)
            headers.setdefault(name.lower(), value.strip())
        return status, headers

    def body(self, headers):
        """The body after these headers."""
        if "content-length" in headers:
            return self.read_exactly(int(headers["content-length"]))
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return b"".join(iter(self.chunk, b""))
        return self.at_end() if headers.get("connection", "").lower() == "close" else b""

    def chunk(self):
        """The next chunk of a chunked body; empty: the last one."""
        size = int(self.read_until(b"\r\n"), 16)
        data = self.read_exactly(size)
        assert self.read_exactly(2) == b"\r\n", "no line end after a chunk"
        return data

    def ask(self, method, path, headers=(), body=b""):
        self.request(method, path, headers, body)
        return self.response(to_head=method == "HEAD")


def handshake(path="/ws", headers=(), host="localhost", version="13", key=None):
    key = base64.b64encode(os.urandom(16)).decode() if key is None else key
    lines = [
        f"GET {path} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Version: {version}",
        f"Sec-WebSocket-Key: {key}",
        *headers,
    ]
    return "\r\n".join(lines).encode("utf-8") + b"\r\n\r\n"


def packet(opcode, payload=b"", fin=True, masked=True, reserved=0, length=None, key=None):
    """A WebSocket frame; `length` overrides the header's value; `key` masks, a random one by default."""
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    if not masked:
        return head + payload
    key = os.urandom(4) if key is None else key
    repeated = (key * (len(payload) // 4 + 1))[: len(payload)]
    body = int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")
    return head + key + body.to_bytes(len(payload), "big")


class Closed(Exception):
    """The server closed, with this WebSocket close code, or with none."""

    def __init__(self, code, reason=""):
        super().__init__(f"closed: {code} {reason}")
        self.code = code
        self.reason = reason


class WebSocket(Http):
    """A WebSocket by hand: `open` upgrades, `receive` gives packets."""

    @classmethod
    def open(cls, server, token=None, headers=("Sec-WebSocket-Protocol: v12.stomp",), path="/ws", **options):
        socket_ = cls(server, **options)
        socket_.send(handshake(f"{path}?token={token}" if token else path, headers))
        response = socket_.response()
        if response.status != 101:
            socket_.close()
            raise AssertionError(f"{response.status} {response.body!r}")
        return socket_

    def receive(self):
        """(opcode, payload) of the next packet; raises `Closed` at a close frame or the end of the stream."""
        try:
            first, second = self.read_exactly(2)
            assert first & 0x70 == 0, "reserved bits are set"
            assert second & 0x80 == 0, "a server must not mask"
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self.read_exactly(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self.read_exactly(8))
            payload = self.read_exactly(size)
        except EOFError:
            raise Closed(None) from None
        opcode = first & 0x0F
        if opcode == CLOSE:
            code = struct.unpack(">H", payload[:2])[0] if payload else 1005
            raise Closed(code, payload[2:].decode())
        return opcode, payload


class Frame:
    """One STOMP frame as it was received, headers not unescaped."""

    def __init__(self, data):
        head, self.body = data.split(b"\n\n", 1)
        self.command, *lines = head.decode().split("\n")
        self.headers = {}
        for line in lines:
            name, value = line.split(":", 1)
            self.headers.setdefault(name, value)

    def __repr__(self):
        return f"{self.command} {self.headers} {self.body!r}"

    def json(self):
        return json.loads(self.body)


class Stomp(WebSocket):
    """STOMP over a WebSocket by hand. The server's frames come one to a message."""

    @classmethod
    def connect(cls, server, token, headers="accept-version:1.2\nhost:tidings\n", **options):
        session = cls.open(server, token, **options)
        session.say(f"CONNECT\n{headers}\n\0")
        session.connected = session.expect("CONNECTED")
        return session

    def say(self, text, opcode=TEXT):
        """Sends text in one WebSocket message."""
        data = text.encode() if isinstance(text, str) else text
        self.send(packet(opcode, data))

    def frame(self):
        """The next STOMP frame; heart-beats and pings in between are skipped."""
        while True:
            opcode, payload = self.receive()
            if opcode in (TEXT, BINARY) and payload.strip(b"\r\n"):
                assert payload.rstrip(b"\n").endswith(b"\0"), payload
                return Frame(payload.lstrip(b"\n").rstrip(b"\n")[:-1])

    def expect(self, command):
        frame = self.frame()
        assert frame.command == command, f"{command} expected, got {frame}"
        return frame

    def subscribe(self, destination, id_="0"):
        self.say(f"SUBSCRIBE\nid:{id_}\ndestination:{destination}\nreceipt:subscribed\n\n\0")
        assert self.expect("RECEIPT").headers["receipt-id"] == "subscribed"

    def error(self):
        """The next ERROR, and the close code after it."""
        error = self.expect("ERROR")
        return error, self.closed()

    def closed(self):
        """The close code; nothing else may come before it but pings and heart-beats."""
        while True:
            try:
                opcode, payload = self.receive()
            except Closed as closed:
                return closed.code
            assert opcode in (PING, PONG) or not payload.strip(b"\r\n"), f"{payload!r} came before the close"
