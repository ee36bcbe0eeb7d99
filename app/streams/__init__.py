"""Who watches what, and what each of them gets next: frames, gaps, topics, watches, history, slow viewers.

Never: writes to Redis, or to a connection otherwise than through app/wire.
"""
