"""A log line as it is sent: its entry, its level, and the bytes of which it was made.

Never: loses a byte of a stream that entries were made of.
"""
