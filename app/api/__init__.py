"""HTTP in and out: routes by audience, the endpoints of both streams, bodies, answers, the request log.

Never: speaks to Redis itself, or decides what becomes of a job.
"""
