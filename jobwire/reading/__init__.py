"""What a job's server tells: its log, page by page or as it grows, and the frames of its streams.

Never: changes anything on the server.
"""

from .log_following import Follow, all_lines, newest_lines, until_ended

__all__ = ["Follow", "all_lines", "newest_lines", "until_ended"]
