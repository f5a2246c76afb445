"""What the tests of this folder share: a server of their own, tokens, and protocols spoken by hand."""
