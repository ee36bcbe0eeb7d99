"""A log line from bytes to block and back: intake, the store of logs, search, paging, blocks, sealing.

Never: looks into the metadata of a line, or changes a line that has been answered.
"""
