"""Bytes on a client's connection: HTTP, the hand-over, framing, what viewers say, what the other side has taken.

Never: knows what a job or a space is.
"""
