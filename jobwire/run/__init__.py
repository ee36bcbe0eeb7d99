"""`jobwire run`: a command as a job, from the child process to what the server is told of its end.

Never: stops a command because the server is away.
"""
