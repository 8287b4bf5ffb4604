"""Effects become processes: spawn, adopt, link, reap."""
