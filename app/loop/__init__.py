"""The event loop that a process's calls share: long work in turns, background tasks, how late it is.

Never: knows what the work is.
"""
