"""What time does: leases that end, schedules that come, logs that rest, jobs whose retention is over.

Never: waits for Redis to tell of an expiry: that only makes it look earlier.
"""
