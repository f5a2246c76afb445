"""A test case with a server for its class and a time limit for each test."""

import signal
import unittest

from wire.server import Server

TEST_SECONDS = 60


class WireTest(unittest.TestCase):
    """`settings` holds configuration keys of the class's server."""

    settings = {}
    server = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.settings)

    @classmethod
    def tearDownClass(cls):
        if cls.server:
            cls.server.stop()

    def run(self, result=None):
        def late(*_):
            raise TimeoutError(f"no end after {TEST_SECONDS} s")

        signal.signal(signal.SIGALRM, late)
        # Repeatedly: a late subtest does not end the later ones.
        signal.setitimer(signal.ITIMER_REAL, TEST_SECONDS, 1)
        try:
            return super().run(result)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def tearDown(self):
        self.assertIsNone(self.server.process.poll(), "the server has died")
