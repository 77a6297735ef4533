"""The bad-day script: what can be written, and what is said about mistakes."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulator import BadScript, CutRest, HangRest, RefuseRest, SlowRest, parse_script
from simulator import faults as f
from simulator.script import Arm, Line


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("at 5s drop", Line(f.Drop(), 5.0)),
        ("at 5 drop no-ghost", Line(f.Drop(ghost=False), 5.0)),
        ("every 500ms drop", Line(f.Drop(), 0.5, 0.5)),
        ("at 10s mute 30s", Line(f.Mute(for_s=30.0), 10.0)),
        ("at 10s mute", Line(f.Mute(), 10.0)),
        ("at 2m unmute", Line(f.Mute(on=False), 120.0)),
        ("at 3s half-open", Line(f.HalfOpen(), 3.0)),
        ("at 4s garbage  # noise", Line(f.Garbage(), 4.0)),
        ("at 7s half-frame", Line(f.HalfFrame(), 7.0)),
        ("at 7s half-frame no-ghost", Line(f.HalfFrame(ghost=False), 7.0)),
        ("at 9s compressed 1000", Line(f.Compressed(1000), 9.0)),
        ("at 2s error 407", Line(f.SendError(407), 2.0)),
        ("at 8s close 1012", Line(f.Close(1012), 8.0)),
        ("at 6s burst 50000 in 1s", Line(f.Burst(50_000, 1.0), 6.0)),
        ("at 9s rate 2000", Line(f.Rate(2000.0), 9.0)),
        ("at 9s heal", Line(f.Heal(), 9.0)),
        (
            "on upgrade status 429 retry-after 3 x2",
            Line(Arm(f.RefuseUpgrade(429, (("Retry-After", "3"),)), 2)),
        ),
        ("on connect refuse 406 for 20s", Line(Arm(f.RefuseAuth(406), None, 20.0))),
        ("on connect no-greeting x1", Line(Arm(f.NoGreeting(), 1))),
        ("on connect no-answer", Line(Arm(f.NoAuthAnswer()))),
        ("on subscribe delay-ack 4s", Line(Arm(f.DelayAck(4.0)))),
        ("on subscribe no-ack x2", Line(Arm(f.NoAck(), 2))),
        ("on subscribe ack-twice x1", Line(Arm(f.AckTwice(), 1))),
        ("on unsubscribe ack-twice", Line(Arm(f.AckTwice("unsubscribe")))),
        ("on subscribe partial-ack 3", Line(Arm(f.PartialAck(3)))),
        ("on subscribe error 405 x1 for 1s", Line(Arm(f.RefuseRequest(405), 1, 1.0))),
        ("on subscribe of VXM error 414", Line(Arm(f.RefuseRequest(414, symbol="VXM")))),
        ("on subscribe of VXM no-ack x2", Line(Arm(f.NoAck(symbol="VXM"), 2))),
        ("on subscribe of VXM close 1008", Line(Arm(f.HangUp(1008, symbol="VXM")))),
        ("on unsubscribe of VXM error 500", Line(Arm(f.RefuseRequest(500, "unsubscribe", "VXM")))),
        ("on subscribe close 1011 x1", Line(Arm(f.HangUp(1011), 1))),
        ("on unsubscribe no-ack", Line(Arm(f.NoAck("unsubscribe")))),
        ("on rest status 502 x1", Line(Arm(RefuseRest(502), 1))),
        ("on rest status 429 reset 2s x3", Line(Arm(RefuseRest(429, 2.0), 3))),
        ("on rest hang 10s", Line(Arm(HangRest(10.0)))),
        ("on rest slow 5s for 1m", Line(Arm(SlowRest(5.0), None, 60.0))),
        ("on rest cut x1", Line(Arm(CutRest(), 1))),
        ("ack-extra ZZZZ", Line(Arm(f.AckExtra("ZZZZ"), 1))),
        ("ignore-unsubscribe x3", Line(Arm(f.IgnoreUnsubscribe(), 3))),
        ("at 20s on subscribe no-ack x1", Line(Arm(f.NoAck(), 1), 20.0)),
    ],
)
def test_meaning(text: str, meaning: Line) -> None:
    """Each form of line means what it says."""
    assert parse_script(text) == (meaning,)


def test_lines_keep_their_order() -> None:
    """Comments and empty lines count for the numbering only."""
    assert len(parse_script("# a bad day\n\nat 1s drop\n  at 2s drop # again\n")) == 2


@pytest.mark.parametrize(
    ("text", "reason", "remedy"),
    [
        ("drop", "'drop' has no time", "at 5s drop"),
        ("at 5x drop", "'5x' is not a duration", "500ms"),
        ("at \u0665s drop", "'\u0665s' is not a duration", "500ms"),
        ("at 5s", "the line ends too early", "an event"),
        ("at 5s explode", "'explode' is not understood", "take any of"),
        ("at 5s drop now", "'now' is too much", "end the line"),
        ("at 5s error 42", "'42' is not an error code", "from 400 to 599"),
        ("at 5s close 1006", "1006 may not be sent", "1000"),
        ("at 6s burst 50000 1s", "'1s' is not understood", "'in'"),
        ("on friday no-ack", "'friday' is no occasion", "upgrade, connect"),
        ("on connect dance", "'dance' is not understood", "refuse"),
        ("on subscribe no-ack twice", "'twice' is not understood", "xN"),
        ("on rest status 200", "'200' is not an HTTP status", "from 400"),
        ("on rest sleep", "'sleep' is not understood", "hang"),
        ("ack-extra aapl", "'aapl' is not a symbol", "ZZZZ"),
        ("every 0s drop", "without a pause", "1ms"),
    ],
)
def test_complaints(text: str, reason: str, remedy: str) -> None:
    """A mistake is told with its line, its reason and its remedy."""
    with pytest.raises(BadScript) as caught:
        parse_script(f"at 1s drop\n{text}\n", "bad.day")
    message = str(caught.value)
    assert message.startswith("bad.day, line 2: ")
    assert reason in message
    assert remedy in message


@given(st.text(max_size=200))
def test_any_text_is_a_script_or_a_complaint(text: str) -> None:
    """No text makes the parser fail in any other way than with a complaint."""
    with contextlib.suppress(BadScript):
        assert len(parse_script(text)) <= text.count("\n") + len(text) + 1


def test_length_is_bounded() -> None:
    """A script of thousands of lines is refused."""
    with pytest.raises(BadScript, match="line 1001: more than 1000 lines"):
        parse_script("at 1s drop\n" * 2_000)
