"""How much of a prompt is computed in one step."""

from typing import Final

CHUNK_TOKENS_MAX: Final = 512
"""While nothing is decoded: the bound of what a cancel waits for."""

CHUNK_TOKENS_MIN: Final = 16
"""However slow prompts are: long contexts on a processor cost milliseconds a token."""

CHUNK_TOKENS_UNKNOWN: Final = 64
"""Beside running streams, before anything was measured."""

STALL_S: Final = 0.015
STALL_STEPS: Final = 2.0
"""How much longer a step may take for a prompt that joins: as long as so many steps."""

CROWD_MAX: Final = 4
"""Several prompts that join together may stall the others that many times as long as one: all
wait less for it, and the others as long in all, in fewer and longer pieces."""

_SHARE: Final = 0.25
"""Weight of the newest measurement."""


class Pace:
    """Learns how fast prompts are computed, and keeps running streams from stalling."""

    def __init__(self) -> None:
        self._step_s = 0.0
        self._tokens_per_s = 0.0

    def chunk_tokens(self, decoding: int, joining: int = 1) -> int:
        """Prompt tokens for the next step, all ``joining`` prompts together, beside
        ``decoding`` rows.

        A power of two: each new shape costs the library memory, and on some devices time.
        """
        if decoding == 0:
            return CHUNK_TOKENS_MAX
        if self._tokens_per_s == 0.0:
            return CHUNK_TOKENS_UNKNOWN
        stall_s = max(STALL_S, STALL_STEPS * self._step_s) * min(joining, CROWD_MAX)
        fitting = self._tokens_per_s * stall_s
        chunk = CHUNK_TOKENS_MIN
        while chunk * 2 <= min(fitting, CHUNK_TOKENS_MAX):
            chunk *= 2
        return chunk

    def took(self, seconds: float, decoding: int, prompt_tokens: int) -> None:
        """A step of ``decoding`` rows and so many prompt tokens took ``seconds``."""
        if prompt_tokens == 0:
            if decoding:
                self._step_s = _mean(self._step_s, seconds)
        elif prompt_tokens >= CHUNK_TOKENS_MIN:
            beside = self._step_s if decoding else 0.0
            prefill_s = max(seconds - beside, seconds / 10, 1e-6)
            self._tokens_per_s = _mean(self._tokens_per_s, prompt_tokens / prefill_s)


def _mean(known: float, new: float) -> float:
    return new if known == 0.0 else known + _SHARE * (new - known)
