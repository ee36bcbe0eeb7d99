"""What the service says of itself: every number, its text at /metrics, and its own log.

Never: asks Redis: numbers that stand there are handed in.
"""
