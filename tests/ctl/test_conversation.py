"""What a chat tells the model, and what its settings accept."""

import base64
import json
from pathlib import Path

import pytest

from ctl.conversation import Conversation, read_image
from daemon.wire import data as d
from daemon.wire.errors import MlxdError

PNG = b"\x89PNG\r\n\x1a\n..."


def roles(talk: Conversation) -> list[str]:
    messages = talk.request().messages
    assert messages is not None
    return [message.role for message in messages]


def test_turns_build_up_and_are_forgotten() -> None:
    talk = Conversation(system="Be brief.")
    talk.ask("one")
    talk.answer("1")
    talk.ask("two")
    assert roles(talk) == ["system", "user", "assistant", "user"]
    talk.clear()
    assert roles(talk) == ["system"]
    assert talk.set_system("") == "no system message"
    assert roles(talk) == []


def test_pictures_go_with_the_next_message_and_need_eyes_from_then_on() -> None:
    talk = Conversation(images=(d.ImagePart(data=PNG),))
    assert talk.needs == ("vision",)
    talk.ask("what?")
    talk.answer("that")
    talk.ask("sure?")
    messages = talk.request().messages
    assert messages is not None
    assert messages[0].parts == (d.ImagePart(data=PNG), d.TextPart(text="what?"))
    assert messages[2].parts == (d.TextPart(text="sure?"),)
    assert talk.needs == ("vision",)
    talk.clear()
    assert talk.needs == ("text",)


def test_what_was_never_answered_is_taken_back_with_its_pictures() -> None:
    talk = Conversation()
    talk.ask("one")
    talk.answer("1")
    talk.images = (d.ImagePart(data=PNG),)
    talk.ask("two")
    talk.take_back()

    assert roles(talk) == ["user", "assistant"]
    assert talk.images == (d.ImagePart(data=PNG),)


def test_settings_reach_the_request() -> None:
    talk = Conversation(settings={"seed": 7, "top_p": None}, stop=("END",))
    for name, value in (("temperature", "0.5"), ("max_tokens", "9"), ("top_k", "40")):
        talk.set(name, value)
    request = talk.request()

    assert request.sampling == d.Sampling(temperature=0.5, top_k=40, seed=7)
    assert (request.max_tokens, request.stop) == (9, ("END",))
    assert talk.set("seed", "default") == "seed: as the model has it"
    assert talk.request().sampling.seed is None
    *lines, rest = talk.settings_lines()
    assert lines == ["temperature: 0.5", "max_tokens: 9", "top_k: 40"]
    assert rest.startswith("as the model has it: top_p, min_p, repetition_penalty, ")
    assert "top_k" not in rest


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("temprature", "1", "there is no setting 'temprature'"),
        ("temperature", "hot", "temperature is a number, or default; not 'hot'"),
        ("temperature", "-1", "temperature: expected `float` >= 0.0"),
        ("temperature", "9", "temperature: expected `float` <= 2.0"),
        ("temperature", "nan", "temperature: expected `float`"),
        ("seed", "-1", "seed: expected `int` >= 0"),
        ("top_k", "1.5", "top_k is a whole number"),
        ("top_p", "2", "top_p: expected `float` <= 1.0"),
        ("max_tokens", "", "max_tokens is a whole number"),
    ],
)
def test_settings_that_are_none(name: str, value: str, said: str) -> None:
    talk = Conversation()
    with pytest.raises(MlxdError, match=said):
        talk.set(name, value)
    (line,) = talk.settings_lines()
    assert line.startswith("as the model has it: temperature, top_p, ")


def test_a_saved_conversation_can_be_read_and_sent_again() -> None:
    talk = Conversation(system="Be brief.", images=(d.ImagePart(data=PNG),))
    talk.set("temperature", "0")
    talk.ask("what is “it”?")
    talk.answer("ü")

    assert talk.saved("chat.md") == (
        "**system**\n\nBe brief.\n\n**user**\n\n(a picture)\nwhat is “it”?\n\n**assistant**\n\nü\n"
    )
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    assert json.loads(talk.saved("chat.json")) == {
        "v": 1,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": url}},
                    {"type": "text", "text": "what is “it”?"},
                ],
            },
            {"role": "assistant", "content": "ü"},
        ],
        "settings": {"temperature": 0.0},
    }


def test_a_picture_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(MlxdError, match=r"cannot read .*: No such file"):
        read_image(tmp_path / "nothing.png")
