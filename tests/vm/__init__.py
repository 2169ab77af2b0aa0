"""Tests that need another kernel than this machine's: they run in a virtual machine with Debian's."""
