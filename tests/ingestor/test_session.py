"""The conversation with the vendor, compared as whole transcripts."""

import pytest

from ingestor.feed.codec import FrameCodec
from ingestor.feed.codes import CODES, Code, Remedy, code_of, is_about_symbols
from ingestor.feed.events import MAX_CHANGE_SYMBOLS, Change, Ready, SessionEnded, SetConfirmed
from ingestor.feed.messages import time_ns_of
from ingestor.feed.session import LOGINS_PER_SOCKET, TRANSITIONS, Credentials, FeedSession, Said, State
from tests.ingestor.vendor import CREDENTIALS, T0_NS, Conversation, ack, error, packed, quote, said, success

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
def test_what_is_not_in_the_table_is_an_oddity(state: State, saying: Said) -> None:
    """Counted and passed over, while the session waits as before; and what is in it leads where it says."""
    before = standing_in(state)
    wake_at_s = before.session.wake_at_s
    talk = before.hear(SAYINGS[saying])
    target = TRANSITIONS.get((state, saying))
    assert talk.session.state is (target or state)
    assert not [line for line in talk.lines if line.startswith("! ended")]
    odd = [line for line in talk.lines if line.startswith("! oddities")]
    if target is None and state is not State.ENDED:
        assert len(odd) == 1
        assert talk.session.wake_at_s == wake_at_s
        assert not [line for line in talk.lines if line.startswith(">")]
    else:
        assert not odd


@pytest.mark.fault("S46")
@pytest.mark.parametrize("words", ["welcome", "CONNECTED", "", "x" * 500])
def test_a_success_in_other_words_ends_no_session(words: str) -> None:
    """It is counted, each time; the right words are still waited for, and the end tells the wrong ones."""
    talk = Conversation().hear(success(words), success("connected"), success(words), success("authenticated"))
    talk.ask(Change(subscribe=("A",))).hear(success(words), ack("A"), success(words), packed(quote("A")))
    assert talk.session.confirmed == {"A"}
    assert talk.lines.count("! oddities {'success': 1} and 0 unreadable") == 4
    assert talk.lines[-1] == "! quotes A"
    last = Conversation().hear(success("welcome")).wait(60).lines[-1]
    assert last == "! ended reconnect: no answer while greeting; it said 'welcome'"


@pytest.mark.fault("S46")
def test_a_gateway_that_has_logged_in_already_is_understood() -> None:
    """Its greeting may be left out, and the answer to our credentials is that we are in."""
    assert Conversation().hear(success("authenticated")).lines[-1] == "! ready"
    talk = Conversation().hear(success("connected"), error(403))
    assert talk.lines[-2:] == ["! reported 403", "! ready"]
    assert talk.session.wake_at_s is None


EVERY_CODE = [*CODES, 414, 499]
"""The vendor's table, which has 500, and numbers that are not in it."""


def ends(code: Code, remedy: Remedy | None = None) -> str:
    """The line of a session's end, which has the vendor's words."""
    return f'! ended {(remedy or code.remedy).value}: {code.meaning} ("whatever") ({code.number})'


@pytest.mark.parametrize("number", EVERY_CODE)
@pytest.mark.parametrize("state", [State.GREETING, State.AUTHENTICATING])
def test_every_error_before_the_session_is_ready(state: State, number: int) -> None:
    """It ends the attempt, but for a taken slot, which is tried again, and for what says that all is well."""
    code, talk = code_of(number), standing_in(state).hear(error(number))
    lines = talk.lines[1:]
    if number == 403:
        assert lines == ["! reported 403", *(["! ready"] if state is State.AUTHENTICATING else [])]
    elif number == 406 and state is State.AUTHENTICATING:
        assert lines == ["! slot taken 406, again in 3 s"]
    else:
        assert lines == [ends(code, Remedy.RECONNECT if is_about_symbols(code) else None)]
    assert (talk.session.state is State.ENDED) == lines[-1].startswith("! ended")


@pytest.mark.parametrize("number", EVERY_CODE)
def test_every_error_unasked_in_a_session_that_is_ready(number: int) -> None:
    """Where nothing was asked, the code decides: what speaks of requests is counted, the rest ends the session."""
    code, talk = code_of(number), standing_in(State.READY).hear(error(number))
    is_harmless = is_about_symbols(code) or code.remedy is Remedy.IGNORE
    assert talk.lines[1:] == [f"! reported {number}" if is_harmless else ends(code)]
    assert (talk.session.state is State.READY) == is_harmless


@pytest.mark.fault("S47")
@pytest.mark.parametrize("number", EVERY_CODE)
@pytest.mark.parametrize(
    "change", [Change(subscribe=("A",)), Change(unsubscribe=("A",))], ids=["add", "remove"]
)
def test_every_error_while_a_change_is_under_way_is_its_answer(number: int, change: Change) -> None:
    """Whatever it means elsewhere; 403 may concern nobody, and is the answer when no other one comes."""
    talk = Conversation().ready().ask(change)
    talk.lines.clear()
    talk.hear(error(number))
    verb = "add" if change.subscribe else "remove"
    refused = f"! refused {number} {code_of(number).remedy.value}, asked to {verb} A"
    if number == 403:
        assert talk.lines[1:] == ["! reported 403"]
        talk.wait(3)
    assert talk.lines[-1] == refused
    assert talk.session.state is State.READY
    assert talk.session.pending is None


@pytest.mark.fault("S47")
def test_an_error_that_concerns_nobody_leaves_the_answer_to_the_acknowledgement() -> None:
    """And the next change is not blamed for it."""
    talk = Conversation().ready().ask(Change(subscribe=("A",))).hear(error(403), ack("A"))
    assert talk.lines[-1] == "! confirmed A, asked to add A"
    talk.ask(Change(subscribe=("B",))).wait(3)
    assert talk.lines[-1] == "! expired, asked to add B"


@pytest.mark.fault("S47")
@pytest.mark.parametrize("number", [402, 407, 414, 500])
def test_an_answer_that_comes_late_or_twice_ends_no_session(number: int) -> None:
    """After a change was given up, after the same refusal, or beside an acknowledgement of only a part."""
    change = Change(subscribe=("A", "X"))
    late = Conversation().ready().ask(change).wait(9)
    twice = Conversation().ready().ask(change).hear(error(number))
    part = Conversation().ready().ask(change).hear(ack("A"))
    for talk in (late, twice, part):
        talk.hear(error(number))
        assert talk.lines[-1] == f"! reported {number}"
        assert talk.session.state is State.READY
        assert talk.wait(60).hear(error(number)).lines[-1] == ends(code_of(number))
    whole = Conversation().ready().ask(change).hear(ack("A", "X"), error(number))
    assert whole.lines[-1] == ends(code_of(number))


@pytest.mark.fault("S47")
@pytest.mark.parametrize("sent", ["407", 407.0, None, "x", [], 2**63])
def test_an_error_is_one_however_its_code_is_spelt(sent: object) -> None:
    """A number in quotation marks is that number; without any, it is still the answer to what was asked."""
    talk = Conversation().ready().ask(Change(subscribe=("A",)))
    talk.lines.clear()
    talk.hear(packed({"T": "error", "code": sent, "msg": "no"}))
    number = 407 if sent in ("407", 407.0) else 2**63 if sent == 2**63 else 0
    assert talk.lines[-1] == f"! refused {number} reconnect, asked to add A"


@pytest.mark.fault("S11")
def test_while_the_slot_is_taken_the_same_socket_logs_in_again() -> None:
    """Every three seconds or so, five times; then a new socket has to do, with the reason told."""
    talk = Conversation().hear(success("connected"))
    for _ in range(LOGINS_PER_SOCKET - 1):
        talk.lines.clear()
        talk.hear(error(406, "connection limit exceeded")).wait(3.0)
        assert talk.lines[1:] == ["! slot taken 406, again in 3 s", f"~ {talk.now_s:g} s", AUTH]
    talk.lines.clear()
    talk.hear(error(406, "connection limit exceeded"))
    assert talk.lines[1:] == [f"! ended slot_taken: {CODES[406].meaning} (406)"]
    talk = Conversation().hear(success("connected"), error(406)).wait(3.0).hear(success("authenticated"))
    assert talk.lines[-1] == "! ready"
    assert talk.session.wake_at_s is None


@pytest.mark.fault("S11")
def test_a_taken_slot_in_one_breath_with_the_greeting_ends_the_attempt() -> None:
    """Before any keys were sent it answers nothing, so there is nothing to send again on this socket."""
    session = Conversation().session
    assert session.receive(success("connected"), 0.0) == []
    (event,) = session.receive(error(406), 0.0)
    assert isinstance(event, SessionEnded)
    assert event.remedy is Remedy.SLOT_TAKEN


@pytest.mark.fault("S11")
def test_a_vendor_that_tires_of_waiting_for_the_slot_costs_no_longer_pause() -> None:
    """404 or an error of its own between two logins: the pace stays that of a taken slot."""
    for number in (404, 500, 400):
        talk = Conversation().hear(success("connected"), error(406), error(number))
        assert talk.lines[-1].startswith("! ended slot_taken: ")
    talk = Conversation().hear(success("connected"), error(406), error(402))
    assert talk.lines[-1].startswith("! ended rejected: ")


@pytest.mark.fault("S48")
def test_a_vendor_that_greets_in_json_is_answered_in_json() -> None:
    """Whoever passes over the handshake's choice would not understand the other; all its frames are read."""
    session = FeedSession(CREDENTIALS, FrameCodec(), 0.0)
    assert session.receive(b'[{"T":"success","msg":"connected"}]', 0.0) == []
    assert session.to_send() == [b'{"action":"auth","key":"PK-THE-KEY","secret":"the-very-secret"}']
    assert session.receive(b'[{"T":"success","msg":"authenticated"}]', 0.0) == [Ready("json")]
    session.ask(Change(subscribe=("A",)), 0.0)
    assert session.to_send() == [b'{"action":"subscribe","quotes":["A"]}']
    (confirmed,) = session.receive(b'[{"T":"subscription","trades":[],"quotes":["A"],"bars":[]}]', 0.0)
    assert isinstance(confirmed, SetConfirmed)
    text = b'[{"T":"q","S":"A","bp":1.5,"bs":3,"ap":1.6,"as":2,"t":"2025-11-13T02:13:24.123825050Z"}]'
    (read,) = session.quotes_in(text) or []
    assert (read.S, read.bp, time_ns_of(bytes(read.t))) == ("A", 1.5, T0_NS)


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
    (event,) = Conversation().session.receive(error(406, CODES[406].msg), 0.0)
    assert event == SessionEnded(Remedy.SLOT_TAKEN, CODES[406].meaning, CODES[406])
