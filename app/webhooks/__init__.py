"""All that is sent to addresses which users gave: callbacks, pushes, Slack, their outbox, forbidden addresses.

Never: connects to a forbidden address: each one is checked as the connection is made.
"""
