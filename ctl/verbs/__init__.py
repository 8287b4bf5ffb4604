"""The verbs of mlxctl, one file a family."""
