"""The conversation with the vendor, compared as whole transcripts."""

import pytest

from ingestor.feed.codes import CODES, Remedy
from ingestor.feed.session import (
    MAX_CHANGE_SYMBOLS,
    TRANSITIONS,
    Change,
    Credentials,
    Said,
    SessionEnded,
    State,
)
from tests.ingestor.vendor import CREDENTIALS, Conversation, ack, error, packed, quote, said, success

AUTH = '> {"action": "auth", "key": "PK-THE-KEY", "secret": "the-very-secret"}'
SAYINGS = {
    Said.CONNECTED: success("connected"),
    Said.AUTHENTICATED: success("authenticated"),
    Said.ACKNOWLEDGEMENT: ack("A"),
    Said.QUOTES: packed(quote("A")),
}


def standing_in(state: State) -> Conversation:
    """A conversation that has come to this state."""
    talk = Conversation()
    if state is not State.GREETING:
        talk.hear(success("connected"))
    if state in (State.READY, State.ENDED):
        talk.hear(success("authenticated"))
    if state is State.ENDED:
        talk.hear(error(407))
    assert talk.session.state is state
    talk.lines.clear()
    return talk


def test_a_session_from_greeting_to_quotes() -> None:
    """Each side speaks in its turn."""
    talk = Conversation()
    talk.hear(success("connected"), success("authenticated"))
    talk.ask(Change(subscribe=("A", "B")))
    talk.hear(ack("A", "B"), packed(quote("A"), quote("B")))
    talk.ask(Change(unsubscribe=("A",)))
    talk.hear(ack("B"))
    assert talk.transcript == said(
        "< connected",
        AUTH,
        "< authenticated",
        "! ready",
        '> {"action": "subscribe", "quotes": ["A", "B"]}',
        "< ack A B",
        "! confirmed A B, asked to add A B",
        "< quote A",
        "< quote B",
        "! quotes A B",
        '> {"action": "unsubscribe", "quotes": ["A"]}',
        "< ack B",
        "! confirmed B, asked to remove A",
    )
    assert talk.session.wake_at_s is None


def test_a_vendor_that_never_greets_is_left_after_five_seconds() -> None:
    """Not before."""
    talk = Conversation().wait(4.9)
    assert talk.transcript == ""
    assert talk.wait(60).transcript == said("~ 5 s", "! ended reconnect: no answer while greeting")


@pytest.mark.fault("S09")
def test_credentials_without_an_answer_are_waited_for_ten_seconds() -> None:
    """Counted from the greeting."""
    talk = Conversation().wait(4).hear(success("connected")).wait(9.9)
    assert talk.transcript == said("< connected", AUTH)
    talk.lines.clear()
    assert talk.wait(60).transcript == said("~ 14 s", "! ended reconnect: no answer while authenticating")


def test_a_change_without_an_answer_expires_after_three_seconds() -> None:
    """The session goes on, and the next change may be asked for."""
    talk = Conversation().ready().ask(Change(subscribe=("A",))).wait(60).ask(Change(subscribe=("A",)))
    assert talk.transcript == said(
        '> {"action": "subscribe", "quotes": ["A"]}',
        "~ 3 s",
        "! expired, asked to add A",
        '> {"action": "subscribe", "quotes": ["A"]}',
    )


def test_being_woken_too_early_means_nothing() -> None:
    """A timer may fire before its time."""
    talk = Conversation()
    assert talk.session.woken(4.999) == []
    assert talk.session.state is State.GREETING


def test_a_settled_session_may_be_silent_for_ever() -> None:
    """Nothing is waited for in a quiet market."""
    assert Conversation().ready().hear(ack()).wait(1e6).transcript == said(
        "< ack -", "! confirmed -, unasked"
    )


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize("saying", list(Said))
def test_what_is_not_in_the_table_ends_the_session(state: State, saying: Said) -> None:
    """And what is in it leads where the table says."""
    talk = standing_in(state).hear(SAYINGS[saying])
    target = TRANSITIONS.get((state, saying))
    assert talk.session.state is (target or State.ENDED)
    ended = [line for line in talk.lines if line.startswith("! ended")]
    if target is None and state is not State.ENDED:
        assert len(ended) == 1
        assert ended[0].startswith("! ended reconnect: ")
        assert f"while {state.value}" in ended[0]
        assert talk.session.wake_at_s is None
    else:
        assert not ended


def test_a_success_of_an_unknown_kind_ends_the_session() -> None:
    """With its words cut to a bearable length."""
    talk = Conversation().hear(success("x" * 500))
    assert talk.session.state is State.ENDED
    assert len(talk.lines[-1]) < 100


def expected_after(state: State, number: int, *, asked: bool) -> str:
    """What the remedy of a code means in a state."""
    code = CODES[number]
    if state is State.ENDED:
        return ""
    if code.remedy is Remedy.IGNORE:
        return f"! reported {number}"
    if code.remedy in (Remedy.DIVIDE, Remedy.LIMIT):
        if asked:
            return f"! refused {number} {code.remedy.value}, asked to add A"
        if state is State.READY:
            return f"! reported {number}"
        return f"! ended reconnect: {code.meaning} ({number})"
    return f"! ended {code.remedy.value}: {code.meaning} ({number})"


@pytest.mark.parametrize("number", list(CODES))
@pytest.mark.parametrize("state", list(State))
def test_every_error_in_every_state(state: State, number: int) -> None:
    """A refusal concerns the change under way, or the session, or nobody."""
    talk = standing_in(state).hear(error(number))
    expected = expected_after(state, number, asked=False)
    assert talk.transcript == said(f"< error {number}", *([expected] if expected else []))
    assert (talk.session.state is State.ENDED) == (expected.startswith("! ended") or state is State.ENDED)


@pytest.mark.parametrize("number", list(CODES))
def test_every_error_while_a_change_is_under_way(number: int) -> None:
    """The change is answered, or lost with the session, or goes on being waited for."""
    talk = Conversation().ready().ask(Change(subscribe=("A",)))
    talk.lines.clear()
    talk.hear(error(number))
    assert talk.lines[1:] == [expected_after(State.READY, number, asked=True)]
    remedy = CODES[number].remedy
    assert (talk.session.pending is not None) == (remedy is Remedy.IGNORE)
    assert (talk.session.wake_at_s is not None) == (remedy is Remedy.IGNORE)


@pytest.mark.fault("S38")
def test_an_acknowledgement_that_nobody_asked_for_is_the_truth() -> None:
    """So is the same one twice."""
    talk = Conversation().ready().ask(Change(subscribe=("A",)))
    talk.lines.clear()
    talk.hear(ack("A"), ack("A"), ack("B"))
    assert talk.transcript == said(
        "< ack A",
        "! confirmed A, asked to add A",
        "< ack A",
        "! confirmed A, unasked",
        "< ack B",
        "! confirmed B, unasked",
    )
    assert talk.session.confirmed == {"B"}


@pytest.mark.fault("S37")
def test_quotes_before_the_acknowledgement_are_kept() -> None:
    """The vendor's feed may be faster than its answer."""
    talk = Conversation().ready().ask(Change(subscribe=("A",)))
    talk.lines.clear()
    talk.hear(packed(quote("A")), ack("A"))
    assert talk.transcript == said("< quote A", "! quotes A", "< ack A", "! confirmed A, asked to add A")


@pytest.mark.parametrize("element", [{"T": "subscription"}, {"T": "subscription", "quotes": None}])
def test_an_acknowledgement_without_quotes_is_an_empty_set(element: dict[str, None]) -> None:
    """Missing or null, nothing is confirmed."""
    talk = Conversation().ready().hear(ack("A"), packed(element))
    assert talk.session.confirmed == frozenset()
    assert talk.lines[-1] == "! confirmed -, unasked"


def test_everything_in_one_frame_is_understood() -> None:
    """Quotes, an acknowledgement, an unknown type and rubbish."""
    mixed = packed(quote("A"), {"T": "subscription", "quotes": ["A"]}, {"T": "x"}, None)
    talk = Conversation().ready().hear(mixed)
    assert talk.lines[4:] == [
        "! quotes A",
        "! confirmed A, unasked",
        "! oddities {'x': 1} and 1 unreadable",
    ]


def test_rubbish_ends_no_session() -> None:
    """It is reported, in whatever state."""
    for state in (State.GREETING, State.AUTHENTICATING, State.READY):
        session = standing_in(state).session
        (event,) = session.receive(b"\xc1", 0.0)
        assert "Oddities" in repr(event)
        assert session.state is state


@pytest.mark.parametrize("state", [State.GREETING, State.AUTHENTICATING, State.ENDED])
def test_no_change_is_asked_for_outside_of_a_ready_session(state: State) -> None:
    """That would be an error of ours."""
    with pytest.raises(RuntimeError, match="no change can be asked for now"):
        standing_in(state).ask(Change(subscribe=("A",)))


def test_one_change_at_a_time() -> None:
    """Acknowledgements carry no request id."""
    talk = Conversation().ready().ask(Change(subscribe=("A",)))
    with pytest.raises(RuntimeError, match="change pending"):
        talk.ask(Change(subscribe=("B",)))


def test_a_change_is_of_one_kind_and_of_limited_size() -> None:
    """Neither empty, nor both, nor larger than what the vendor answers well."""
    many = tuple(f"S{i}" for i in range(MAX_CHANGE_SYMBOLS + 1))
    for subscribe, unsubscribe in ((many, ()), ((), many), ((), ()), (("A",), ("B",))):
        with pytest.raises(ValueError, match="a change"):
            Change(subscribe, unsubscribe)
    assert MAX_CHANGE_SYMBOLS == 500
    assert len(Change(subscribe=many[1:]).subscribe) == 500


def test_an_ended_session_hears_nothing_more() -> None:
    """Even if frames were under way."""
    talk = standing_in(State.ENDED)
    talk.hear(packed(quote()), ack("A"), success("connected")).wait(100)
    assert not [line for line in talk.lines if not line.startswith("<")]


def test_an_error_in_the_middle_of_a_frame_silences_what_follows_it() -> None:
    """One end is reported, not two."""
    frame = packed({"T": "error", "code": 407}, {"T": "error", "code": 500}, {"T": "success", "msg": "?"})
    talk = Conversation().ready().hear(frame)
    assert [line for line in talk.lines if line.startswith("!")] == [
        f"! ended reconnect: {CODES[407].meaning} (407)"
    ]


def test_no_secret_is_ever_shown() -> None:
    """Neither in the credentials' repr nor in the session's, nor in what it reports."""
    talk = Conversation()
    talk.hear(success("connected"))
    shown = [repr(CREDENTIALS), str(Credentials("a", "b")), repr(talk.session), repr(talk.session.__class__)]
    shown.append(repr(talk.session.receive(error(402), 1.0)))
    for text in shown:
        assert CREDENTIALS.secret not in text
        assert CREDENTIALS.key not in text


def test_the_end_says_why() -> None:
    """With the vendor's code where there was one."""
    (event,) = Conversation().session.receive(error(406), 0.0)
    assert event == SessionEnded(Remedy.SLOT_TAKEN, CODES[406].meaning, CODES[406])
