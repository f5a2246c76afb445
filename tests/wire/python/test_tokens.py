"""Tokens that must be refused, wherever a client can pass one; and the origins that browsers may come from."""

import base64
import json
import time
import unittest

from wire.case import WireTest
from wire.raw import Http, Stomp, handshake
from wire.server import HS256, base64url, claims_of, mint, remember, sign, users


def unsigned(header, claims):
    return remember(f"{base64url(json.dumps(header).encode())}.{base64url(json.dumps(claims).encode())}.")


def flipped(token):
    """The token with one bit of its signature changed."""
    head, signature = token.rsplit(".", 1)
    raw = bytearray(base64.urlsafe_b64decode(signature + "=="))
    raw[0] ^= 1
    return remember(f"{head}.{base64url(bytes(raw))}")


def with_claims_of(token, claims):
    head, _, signature = token.split(".")
    return remember(f"{head}.{base64url(json.dumps(claims).encode())}.{signature}")


def bad_tokens():
    """(name, token) of tokens that are refused wherever they are given."""
    (user,) = users(1)
    now = int(time.time())
    good = claims_of(user)
    yield "garbage", "garbage"
    yield "dots only", ".."
    yield "one part missing", mint(user).rsplit(".", 1)[0]
    yield "four parts", remember(mint(user) + ".x")
    yield "no base64", "ä.ö.ü".encode("ascii", "xmlcharrefreplace").decode()
    yield "a wrong signature", sign(HS256, good, "another-secret-of-another-server-32")
    yield "a flipped bit", flipped(mint(user))
    yield "other claims under the signature", with_claims_of(mint(user), claims_of(user + 1))
    yield "no signature", mint(user).rsplit(".", 1)[0] + "."
    for algorithm in ("none", "None", "NONE", "nOnE"):
        yield f"alg {algorithm}", unsigned({"alg": algorithm, "typ": "JWT"}, good)
        yield f"alg {algorithm}, signed", sign({"alg": algorithm}, good)
    for algorithm in ("HS384", "HS512", "RS256", "ES256", "EdDSA", "", "hs256", None, 5):
        yield f"alg {algorithm}", sign({"alg": algorithm, "typ": "JWT"}, good)
    yield "no alg", sign({"typ": "JWT"}, good)
    yield "a header that is no object", sign([], good)
    yield "claims that are no object", sign(HS256, [1])
    yield "claims that are no JSON", sign(HS256, b"{")
    yield "claims that are not UTF-8", sign(HS256, b'{"sub":"\xff"}')
    yield "an exp in a string", sign(HS256, good | {"exp": str(now + 600)})
    yield "no exp", sign(HS256, claims_of(user, exp=None))
    yield "an exp of null", sign(HS256, good | {"exp": None})
    yield "an exp in an array", sign(HS256, good | {"exp": [now + 600]})
    yield "an exp that is true", sign(HS256, good | {"exp": True})
    yield "a negative exp", sign(HS256, good | {"exp": -1})
    yield "an exp of now", sign(HS256, good | {"exp": now})
    yield "an exp that passed", sign(HS256, good | {"exp": now - 1})
    yield "an nbf ahead", sign(HS256, good | {"nbf": now + 60})
    yield "an nbf in a string", sign(HS256, good | {"nbf": str(now - 60)})
    for sub in (None, 0, -1, 1.5, 2**53, "0", "-1", "01", " 1", "1 ", "x", "", "1e3", True, [user], {"id": user}, str(2**53)):
        yield f"a sub of {sub!r}", sign(HS256, {"sub": sub, "exp": now + 600})
    yield "no sub", sign(HS256, claims_of(user, sub=None))
    yield "roles in a string", sign(HS256, good | {"roles": "admin"})
    yield "a critical header", sign(HS256 | {"crit": ["exp"]}, good)


class BadTokens(WireTest):
    def upgrade(self, path, headers=()):
        with Http(self.server) as connection:
            connection.send(handshake(path, headers))
            return connection.response()

    def test_in_the_query_of_the_handshake(self):
        for name, token in bad_tokens():
            with self.subTest(name):
                response = self.upgrade(f"/ws?token={token.replace('#', '%23').replace('&', '%26').replace(';', '%3B')}")
                self.assertEqual(response.status, 401)

    def test_in_the_header_of_the_handshake(self):
        for name, token in bad_tokens():
            with self.subTest(name):
                self.assertEqual(self.upgrade("/ws", [f"Authorization: Bearer {token}"]).status, 401)

    def test_in_connect(self):
        for name, token in bad_tokens():
            with self.subTest(name), Stomp.open(self.server) as session:
                began = time.monotonic()
                session.say(f"CONNECT\naccept-version:1.2\nhost:x\nAuthorization:Bearer {token}\n\n\0")
                error, code = session.error()
                self.assertTrue(error.headers["message"])
                self.assertNotIn(token, repr(error))
                self.assertEqual(code, 1008)
                self.assertLess(time.monotonic() - began, 1.5)

    def test_over_rest(self):
        with Http(self.server) as connection:
            for name, token in bad_tokens():
                with self.subTest(name):
                    response = connection.ask("GET", "/users/me", [f"Authorization: Bearer {token}"])
                    self.assertEqual(response.status, 401)
                    self.assertTrue(response.headers["www-authenticate"].startswith("Bearer"))
                    self.assertEqual(response.json()["code"], "unauthorized")

    def test_other_schemes_of_authorization(self):
        (user,) = users(1)
        token = mint(user)
        with Http(self.server) as connection:
            for value in [token, f"Basic {token}", f"Bearer{token}", "Bearer", "Bearer ", f"Bearer {token} {token}", f"Token {token}"]:
                self.assertEqual(connection.ask("GET", "/users/me", [f"Authorization: {value}"]).status, 401, value)

    def test_an_empty_token_in_the_query(self):
        self.assertEqual(self.upgrade("/ws?token=").status, 401)

    def test_two_tokens_in_the_query(self):
        alice, bob = users(2)
        self.assertEqual(self.upgrade(f"/ws?token=garbage&token={mint(bob)}").status, 401)
        with Stomp.connect(self.server, f"{mint(alice)}&token={mint(bob)}") as session:
            self.assertEqual(session.connected.headers["user-name"], str(alice), "the first counts")

    def test_different_users_in_query_and_connect(self):
        alice, bob = users(2)
        with Stomp.open(self.server, mint(alice)) as session:
            session.say(f"CONNECT\naccept-version:1.2\nhost:x\nAuthorization:Bearer {mint(bob)}\n\n\0")
            _, code = session.error()
            self.assertEqual(code, 1008)

    def test_a_bad_token_in_connect_after_a_good_one_in_the_query(self):
        (alice,) = users(1)
        with Stomp.open(self.server, mint(alice)) as session:
            session.say("CONNECT\naccept-version:1.2\nhost:x\nAuthorization:Bearer garbage\n\n\0")
            _, code = session.error()
            self.assertEqual(code, 1008)

    def test_a_token_that_expires_between_handshake_and_connect(self):
        (alice,) = users(1)
        with Stomp.open(self.server, mint(alice, ttl=1)) as session:
            error, code = session.error()
            self.assertIn("expired", error.headers["message"])
            self.assertEqual(code, 1008)


class GoodTokens(WireTest):
    def test_a_sub_may_be_a_number_or_a_string(self):
        (user,) = users(1)
        for sub in (user, str(user), 2**53 - 1):
            with Stomp.connect(self.server, mint(user, sub=sub)) as session:
                self.assertEqual(session.connected.headers["user-name"], str(sub))

    def test_unknown_claims_do_no_harm(self):
        (user,) = users(1)
        with Stomp.connect(self.server, mint(user, aud=["x", "y"], iss="somewhere", nested={"a": [1, {"b": None}]}, nbf=1)):
            pass

    def test_an_exp_may_have_a_fraction(self):
        (user,) = users(1)
        with Stomp.connect(self.server, mint(user, exp=time.time() + 600.5)):
            pass

    def test_the_query_may_hold_more_than_the_token(self):
        (user,) = users(1)
        with Http(self.server) as connection:
            connection.send(handshake(f"/ws?t=1&token={mint(user)}&x=y"))
            self.assertEqual(connection.response().status, 101)

    def test_a_percent_encoded_token(self):
        (user,) = users(1)
        with Http(self.server) as connection:
            connection.send(handshake("/ws?token=" + mint(user).replace(".", "%2E")))
            self.assertEqual(connection.response().status, 101)


class Origins(WireTest):
    settings = {"cors.origins": "https://app.example"}

    def upgrade(self, origin, host=None):
        (user,) = users(1)
        headers = [] if origin is None else [f"Origin: {origin}"]
        with Http(self.server) as connection:
            connection.send(handshake(f"/ws?token={mint(user)}", headers, host=host or f"127.0.0.1:{self.server.port}"))
            return connection.response().status

    def test_origins_that_may_come(self):
        for origin in [None, "https://app.example", f"http://127.0.0.1:{self.server.port}"]:
            self.assertEqual(self.upgrade(origin), 101, origin)

    def test_origins_that_may_not(self):
        for origin in [
            "null",
            "",
            "https://evil.example",
            "http://app.example",
            "https://app.example:8443",
            "https://app.example.evil.example",
            "https://evilapp.example",
            "https://app.example@evil.example",
            "https://app.example/",
            "https://app_example",
            "https://app.examplé",
            "https://app.example https://evil.example",
            "file://",
            "app.example",
        ]:
            self.assertEqual(self.upgrade(origin), 403, origin)

    def test_two_origins(self):
        (user,) = users(1)
        with Http(self.server) as connection:
            headers = ["Origin: https://app.example", "Origin: https://evil.example"]
            connection.send(handshake(f"/ws?token={mint(user)}", headers))
            self.assertIn(connection.response().status, (400, 403))


if __name__ == "__main__":
    unittest.main()
