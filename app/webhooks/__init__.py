"""All that is sent to addresses which users gave: callbacks, pushes, Slack, their outbox and guard.

Never: connects to an address that the guard has not let through.
"""
