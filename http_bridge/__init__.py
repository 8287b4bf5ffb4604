"""The HTTP bridge of mlxd: OpenAI-style HTTP in front of the daemon and its workers."""
