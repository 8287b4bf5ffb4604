"""Numbers as words; words as the lists have them, where those are installed."""
# ruff: noqa: RUF001  (Kokoro's alphabet)

from importlib.util import find_spec

import pytest

from daemon.wire.errors import Code, MlxdError
from daemon.worker.engines.phonemes import english_phonemes, number_words

INSTALLED = find_spec("misaki") is not None


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("0", "zero"),
        ("13", "thirteen"),
        ("21", "twenty one"),
        ("40", "forty"),
        ("100", "one hundred"),
        ("1,205", "one thousand two hundred five"),
        ("3000000", "three million"),
        ("3.05", "three point zero five"),
        ("1st", "first"),
        ("22nd", "twenty second"),
        ("30th", "thirtieth"),
        ("$1", "one dollar"),
        ("$12", "twelve dollars"),
        ("1" * 16, " ".join(["one"] * 16)),
    ],
)
def test_numbers_are_said(written: str, said: str) -> None:
    assert " ".join(number_words(written)) == said


@pytest.mark.skipif(INSTALLED, reason="the word lists are installed")
def test_without_the_lists_the_refusal_says_what_to_do() -> None:
    with pytest.raises(MlxdError, match="misaki") as caught:
        english_phonemes("Hello.")
    assert (caught.value.code, caught.value.fault.field) == (Code.INVALID_REQUEST, "text")


@pytest.mark.skipif(not INSTALLED, reason="needs the optional package misaki")
@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("Paris is in France.", "pˈɛɹəs ɪz ɪn fɹˈæns."),
        ("the model, the apple", "ðə mˈɑdᵊl, ði ˈæpᵊl"),
        ("It evicts 3 cats!", "ɪt əvˈɪkts θɹˈi kˈæts!"),
        ("QZX", "kjˈu zˈi ˈɛks"),
    ],
)
def test_words_are_as_the_lists_have_them(text: str, phonemes: str) -> None:
    assert english_phonemes(text) == phonemes


@pytest.mark.skipif(not INSTALLED, reason="needs the optional package misaki")
def test_other_scripts_are_refused() -> None:
    with pytest.raises(MlxdError, match="English"):
        english_phonemes("Привет")
