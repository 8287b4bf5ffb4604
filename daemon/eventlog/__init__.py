"""The append-only event log: JSON Lines that jq reads, chained and synced."""
