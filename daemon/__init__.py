"""The daemon of mlxd: pool, event log, supervision and the protocol."""
