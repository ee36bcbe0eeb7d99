"""What the service says of itself: every number and its text, and its own log.

Never: asks Redis: numbers that stand there are handed in.
"""
