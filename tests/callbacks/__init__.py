"""Callbacks, pushes and Slack: the parts by themselves, and the process against a receiver of its own."""
