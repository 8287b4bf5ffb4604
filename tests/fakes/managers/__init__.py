"""Service managers for tests: they keep sockets, start real programs, and can be asked."""
