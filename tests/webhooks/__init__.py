"""Callbacks, pushes and Slack: the parts by themselves, and the process against a receiver, a program of its own."""
