"""stomp.py over WebSocket: a third-party client, in another language than the first."""

import json
import queue
import unittest

try:
    import stomp
except ImportError as missing:
    raise SystemExit("stomp.py is not installed: run `tests/run python`") from missing

from wire.case import WireTest
from wire.server import mint, users

PATIENCE = 8


class Listener(stomp.ConnectionListener):
    """Keeps arriving frames until a test asks for them."""

    def __init__(self):
        self.messages = queue.Queue()
        self.errors = queue.Queue()
        self.receipts = queue.Queue()
        self.ends = queue.Queue()

    def on_message(self, frame):
        self.messages.put(frame)

    def on_error(self, frame):
        self.errors.put(frame)

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_disconnected(self):
        self.ends.put(True)


class StompPy(WireTest):
    def setUp(self):
        self.alice, self.bob = users(2)
        self.conversation = self.server.conversation(self.alice, self.bob)

    def connection(self, token=None, **options):
        path = f"/ws?token={token}" if token else "/ws"
        connection = stomp.WSStompConnection(
            [("127.0.0.1", self.server.port)], ws_path=path, reconnect_attempts_max=1, timeout=PATIENCE, **options
        )
        listener = Listener()
        connection.set_listener("test", listener)
        self.addCleanup(self.end, connection)
        return connection, listener

    @staticmethod
    def end(connection):
        connection.transport.disconnect_socket()

    def connect(self, user, by_header=False, **options):
        token = mint(user)
        connection, listener = self.connection(None if by_header else token, **options)
        connection.connect(wait=True, headers={"Authorization": f"Bearer {token}"} if by_header else {})
        return connection, listener

    def subscribe(self, connection, listener, destination, id_):
        connection.subscribe(destination, id_, headers={"receipt": f"subscribed-{id_}"})
        self.assertEqual(listener.receipts.get(timeout=PATIENCE), f"subscribed-{id_}")

    def test_a_message_from_user_to_user(self):
        for by_header in (False, True):
            sender, sent = self.connect(self.alice, by_header)
            receiver, received = self.connect(self.bob, by_header)
            self.subscribe(receiver, received, "/user/queue/messages", "1")
            sender.send(
                f"/app/conversations/{self.conversation}/send",
                json.dumps({"content": "from Python: é 🎉"}),
                content_type="application/json",
                headers={"receipt": "durable", "x-note": "a:b\nc"},
            )
            self.assertEqual(sent.receipts.get(timeout=PATIENCE), "durable")
            message = received.messages.get(timeout=PATIENCE)
            stored = self.server.history(self.bob, self.conversation)[-1]
            self.assertEqual(json.loads(message.body), stored)
            self.assertEqual(message.headers["message-id"], stored["id"])
            self.assertEqual(message.headers["destination"], "/user/queue/messages")
            self.assertEqual(message.headers["x-note"], "a:b\nc")
            self.assertEqual(stored["content"], "from Python: é 🎉")
            for connection, listener in ((sender, sent), (receiver, received)):
                connection.disconnect(receipt="bye")
                self.assertEqual(listener.receipts.get(timeout=PATIENCE), "bye")

    def test_a_rest_send_reaches_the_subscriber(self):
        receiver, received = self.connect(self.bob)
        self.subscribe(receiver, received, f"/user/{self.bob}/queue/messages", "1")
        stored = self.server.post(self.alice, self.conversation, "over REST")
        self.assertEqual(json.loads(received.messages.get(timeout=PATIENCE).body), stored)

    def test_a_bad_token(self):
        connection, _ = self.connection("garbage")
        with self.assertRaises(stomp.exception.ConnectFailedException):
            connection.connect(wait=True)
        connection, listener = self.connection()
        with self.assertRaises(stomp.exception.ConnectFailedException):
            connection.connect(wait=True, headers={"Authorization": "Bearer garbage"})
        self.assertTrue(listener.errors.get(timeout=PATIENCE).headers["message"])

    def test_no_token(self):
        connection, listener = self.connection()
        with self.assertRaises(stomp.exception.ConnectFailedException):
            connection.connect(wait=True)
        self.assertTrue(listener.errors.get(timeout=PATIENCE).headers["message"])

    def test_another_users_queue(self):
        connection, listener = self.connect(self.alice)
        connection.subscribe(f"/user/{self.bob}/queue/messages", "1")
        self.assertTrue(listener.errors.get(timeout=PATIENCE).headers["message"])
        listener.ends.get(timeout=PATIENCE)
        self.assertTrue(listener.messages.empty())

    def test_a_foreign_conversation(self):
        (eve,) = users(1)
        connection, listener = self.connect(eve)
        self.subscribe(connection, listener, "/user/queue/errors", "1")
        connection.send(f"/app/conversations/{self.conversation}/send", json.dumps({"content": "x"}), headers={"receipt": "r"})
        refusal = json.loads(listener.messages.get(timeout=PATIENCE).body)
        self.assertEqual((refusal["code"], refusal["receipt"]), ("not_participant", "r"))
        self.assertTrue(connection.is_connected())

    def test_two_tabs(self):
        tabs = [self.connect(self.bob) for _ in range(2)]
        for connection, listener in tabs:
            self.subscribe(connection, listener, "/user/queue/messages", "1")
        stored = self.server.post(self.alice, self.conversation, "to both")
        for _, listener in tabs:
            self.assertEqual(json.loads(listener.messages.get(timeout=PATIENCE).body), stored)

    def test_a_transaction(self):
        connection, listener = self.connect(self.alice)
        transaction = connection.begin()
        for content in ("first", "second"):
            connection.send(f"/app/conversations/{self.conversation}/send", json.dumps({"content": content}), transaction=transaction)
        self.assertEqual(self.server.history(self.bob, self.conversation), [])
        connection.commit(transaction, receipt="committed")
        self.assertEqual(listener.receipts.get(timeout=PATIENCE), "committed")
        self.assertEqual([message["content"] for message in self.server.history(self.bob, self.conversation)], ["first", "second"])

    def test_acknowledgements(self):
        connection, listener = self.connect(self.bob)
        connection.subscribe("/user/queue/messages", "1", ack="client-individual", headers={"receipt": "subscribed"})
        self.assertEqual(listener.receipts.get(timeout=PATIENCE), "subscribed")
        self.server.post(self.alice, self.conversation, "to acknowledge")
        message = listener.messages.get(timeout=PATIENCE)
        connection.ack(message.headers["ack"], receipt="acknowledged")
        self.assertEqual(listener.receipts.get(timeout=PATIENCE), "acknowledged")

    def test_frames_in_binary_messages(self):
        connection, listener = self.connect(self.alice, binary_mode=True)
        connection.send("/app/send", json.dumps({"conversationId": self.conversation, "content": "binary"}), headers={"receipt": "r"})
        self.assertEqual(listener.receipts.get(timeout=PATIENCE), "r")
        self.assertEqual(self.server.history(self.bob, self.conversation)[0]["content"], "binary")

    def test_unsubscribe(self):
        connection, listener = self.connect(self.bob)
        self.subscribe(connection, listener, "/user/queue/messages", "1")
        self.subscribe(connection, listener, f"/topic/conversation/{self.conversation}", "2")
        connection.unsubscribe("1", headers={"receipt": "gone"})
        self.assertEqual(listener.receipts.get(timeout=PATIENCE), "gone")
        self.server.post(self.alice, self.conversation, "to the topic alone")
        self.assertEqual(listener.messages.get(timeout=PATIENCE).headers["subscription"], "2")
        self.assertTrue(listener.messages.empty())


class HeartBeats(WireTest):
    settings = {"limits.heartbeat_ms": 300, "limits.heartbeat_ms_min": 100}

    def test_a_session_with_heart_beats_stays(self):
        (user,) = users(1)
        beats = queue.Queue()

        class Beats(stomp.ConnectionListener):
            def on_heartbeat(self):
                beats.put(True)

        connection = stomp.WSStompConnection(
            [("127.0.0.1", self.server.port)], ws_path=f"/ws?token={mint(user)}", heartbeats=(300, 300), timeout=PATIENCE
        )
        connection.set_listener("beats", Beats())
        self.addCleanup(connection.transport.disconnect_socket)
        connection.connect(wait=True)
        for _ in range(5):
            beats.get(timeout=PATIENCE)
        self.assertTrue(connection.is_connected())


if __name__ == "__main__":
    unittest.main()
