"""The control socket: listener, sessions, and the pool as clients see it."""
