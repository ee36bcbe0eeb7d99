"""The HTTP API as Python calls: one method, one request, its answer as a struct.

Never: repeats a call by itself, or waits beyond one answer.
"""
