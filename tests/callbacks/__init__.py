"""Callbacks, pushes and Slack: the parts by themselves, and the process against a receiver that is a program of its own."""
