"""All that is sent to addresses which users gave: callbacks, pushes, Slack, their outbox, and which addresses are forbidden.

Never: connects to a forbidden address: each one is checked as the connection is made.
"""
