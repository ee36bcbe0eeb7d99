"""One machine: `jobwire up`, the embedded Valkey and the embedded cluster, data folders, credentials, the demo.

Never: serves a process that runs elsewhere: what `web` needs stands outside.
"""
