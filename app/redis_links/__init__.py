"""Links to Redis: dialling, calls, scripts, pub/sub, epochs, its clock, its memory.

Never: sends a command a second time by itself, unless it is proved that it did not run.
"""
