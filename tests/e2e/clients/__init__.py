"""Programs that drive the service with other people's clients, in an environment of their own."""
