"""Tests on processors of another kind: Debian's programs for it, under QEMU's user emulation."""
