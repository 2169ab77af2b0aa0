"""Ciphers, digests, static keys, key derivation and the replay window."""
