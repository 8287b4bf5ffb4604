"""The pool, pure: what is true, what may become true, and why. No I/O, clock or chance."""
