"""English text as the phonemes that Kokoro reads, by the dictionaries of the misaki package.

misaki (Apache-2.0) is an optional dependency, and only its word lists are used: its own
reader needs spaCy, and its fallback for unknown words eSpeak, which is GPL. Here a word
that is in no list is spelled.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, Final

from daemon.worker.engines.conversation import invalid

_TOKEN: Final = re.compile(
    r"(?P<number>\$?\d[\d,]*(?:\.\d+)?(?:st|nd|rd|th)?)|(?P<word>[A-Za-z]+(?:['\u2019][A-Za-z]+)*)"
    r"|(?P<sign>[%&+=@])|(?P<pause>[;:,.!?—…]+)"
)
_SIGNS: Final = {"%": "percent", "&": "and", "+": "plus", "=": "equals", "@": "at"}
_VOWELS: Final = frozenset("AIOQWYaiuæɑɒɔəɛɜɪʊʌᵻ")  # noqa: RUF001  (Kokoro's alphabet)
_SMALL: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen"),
)
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SCALES: Final = ((10**12, "trillion"), (10**9, "billion"), (10**6, "million"), (1000, "thousand"))
_ORDINALS: Final = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}


def english_phonemes(text: str) -> str:
    """Phonemes in Kokoro's alphabet, words parted by blanks, punctuation kept.

    Raises:
        MlxdError: ``invalid_request``: the word lists are not installed, or the text is not
            written in Latin letters.
    """
    lexicon = _lexicon()
    foreign = next((one for one in text if one.isalpha() and not one.isascii()), None)
    if foreign is not None:
        raise invalid(f'only English can be read aloud, and "{foreign}" is not English', "text")
    spoken: list[str] = []
    for word in _words(text):
        if word[0].isalpha():
            spoken.append(" " + word)
        elif spoken:
            spoken.append(word[0])
    return "".join(
        _said(lexicon, word, spoken[i + 1 : i + 2]) for i, word in enumerate(spoken)
    ).strip()


def _words(text: str) -> list[str]:
    """Words and punctuation; numbers and signs as words."""
    words: list[str] = []
    for match in _TOKEN.finditer(text):
        if match["number"]:
            words += number_words(match["number"])
        else:
            words.append(_SIGNS.get(match[0], match[0].replace("\u2019", "'")))
    return words


def _said(lexicon: Mapping[str, Any], word: str, following: list[str]) -> str:
    """One word or mark; a few little words depend on what follows."""
    if not word.startswith(" "):
        return word
    plain = word[1:]
    lower = plain.lower()
    if plain == "a":
        return " ɐ"
    if lower in {"the", "to"}:
        after = _pronounced(lexicon, following[0].strip()) if following else ""
        vowel = after.lstrip("ˈˌ")[:1] in _VOWELS
        if lower == "the":
            return " ði" if vowel else " ðə"
        return " tʊ" if vowel else " tə"
    return " " + _pronounced(lexicon, plain)


def _pronounced(lexicon: Mapping[str, Any], word: str) -> str:
    """By the lists, else by its stem, else spelled."""
    found = _listed(lexicon, word) or _inflected(lexicon, word)
    if found:
        return found
    if "'" in word:
        return _pronounced(lexicon, word.replace("'", ""))
    return " ".join(filter(None, (_listed(lexicon, letter.upper()) for letter in word)))


def _listed(lexicon: Mapping[str, Any], word: str) -> str:
    for form in (word, word.lower(), word.capitalize()):
        found = lexicon.get(form)
        if isinstance(found, Mapping):
            found = found.get("DEFAULT")
        if isinstance(found, str):
            return found
    return ""


def _inflected(lexicon: Mapping[str, Any], word: str) -> str:
    """A listed stem with -s, -ed or -ing."""
    lower = word.lower()
    for ending, add in _ENDINGS:
        if lower.endswith(ending) and len(lower) > len(ending) + 1:
            stem = lower[: -len(ending)]
            for form in (stem, stem + "e", stem[:-1] if stem[-1] == stem[-2] else ""):
                found = _listed(lexicon, form) if form else ""
                if found:
                    return add(found)
    return ""


def _plural(stem: str) -> str:
    if stem[-1] in "szʃʒʧʤ":
        return stem + "ᵻz"
    return stem + ("s" if stem[-1] in "ptkfθ" else "z")


def _past(stem: str) -> str:
    if stem[-1] in "td":
        return stem + "ᵻd"
    return stem + ("t" if stem[-1] in "pkfθʃsʧ" else "d")


def _progressive(stem: str) -> str:
    return stem + "ɪŋ"


_ENDINGS: Final[tuple[tuple[str, Callable[[str], str]], ...]] = (
    ("'s", _plural),
    ("s", _plural),
    ("es", _plural),
    ("ed", _past),
    ("ing", _progressive),
)


@functools.cache
def _lexicon() -> Mapping[str, Any]:
    """The American lists, the surer one before the other."""
    try:
        data = resources.files("misaki") / "data"
        silver = json.loads((data / "us_silver.json").read_text("utf-8"))
        gold = json.loads((data / "us_gold.json").read_text("utf-8"))
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise invalid(
            "this model reads phonemes, and the word lists that turn text into them are not "
            "installed: add the package misaki, or send phonemes between slashes",
            "text",
        ) from error
    return {**silver, **gold}


def number_words(written: str) -> list[str]:
    """A number as it is said: "21st", "3.5", "1,200" and "$5" among them."""
    digits = written.strip("$stndrh").replace(",", "")
    whole, _, fraction = digits.partition(".")
    words = _cardinal(int(whole))
    if fraction:
        words += ["point", *(_SMALL[int(digit)] for digit in fraction)]
    if written[-1].isalpha():
        words[-1] = _ordinal(words[-1])
    if written.startswith("$"):
        words.append("dollar" if words == ["one"] else "dollars")
    return words


def _cardinal(number: int) -> list[str]:
    if number >= 1000 * _SCALES[0][0]:
        return [_SMALL[int(digit)] for digit in str(number)]
    for scale, name in _SCALES:
        if number >= scale:
            rest = _cardinal(number % scale) if number % scale else []
            return [*_cardinal(number // scale), name, *rest]
    if number >= 100:
        rest = _cardinal(number % 100) if number % 100 else []
        return [_SMALL[number // 100], "hundred", *rest]
    if number >= 20:
        return [_TENS[number // 10 - 2], *(_cardinal(number % 10) if number % 10 else [])]
    return [_SMALL[number]]


def _ordinal(word: str) -> str:
    if word in _ORDINALS:
        return _ORDINALS[word]
    return word[:-1] + "ieth" if word.endswith("y") else word + "th"
