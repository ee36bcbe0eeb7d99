"""The verbs of jobs, spaces and keys on Redis: the store, who may do what, long polls, bulk retry, deletion.

Never: reads and writes back: each change is one script.
"""
