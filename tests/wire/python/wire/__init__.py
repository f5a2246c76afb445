"""Shared by the tests of this folder: a server of their own, tokens, and protocols by hand."""
