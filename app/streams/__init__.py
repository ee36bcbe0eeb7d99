"""Who watches what, and what each of them gets next: frames, sequence, topics, watches, history.

Never: writes to Redis, or to a connection otherwise than through app/wire.
"""
