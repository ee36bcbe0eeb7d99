"""Bytes on a client's connection: HTTP, the hand-over, framing, what viewers say, who stands still.

Never: knows what a job or a space is.
"""
