"""What is written once: counters and error codes. Code, labels and reference pages follow these tables.

Pure: no I/O. The lowest floor, so that every room can read them.
"""
