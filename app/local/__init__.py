"""One machine, one process: `jobwire up`, the embedded Valkey, its data folder, the credentials, the demo.

Never: serves a process that runs elsewhere: what `web` needs stands outside.
"""
