"""Lines on their way to a job's log: `logging`'s handler, the buffer, the file behind it, the thread that sends.

Never: changes the order of lines, or stores one twice.
"""
