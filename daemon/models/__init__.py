"""Model folders: what is in them, and which names lead to them. No mlx is imported here."""
