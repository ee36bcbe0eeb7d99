"""Words of the domain, without I/O: jobs, errors, Redis's keys, times, JSON that is kept as it was sent.

Never: imports anything of the server but settings.
"""
