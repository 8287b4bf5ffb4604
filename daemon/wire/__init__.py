"""All that the clients of the daemon may import: messages, framing, errors, settings, client."""
