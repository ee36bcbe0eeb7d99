"""Where the service is and which key to use: the environment, the configuration file, the data folder of `jobwire up`.

Never: sends a key to another address than the one that it stands beside.
"""
