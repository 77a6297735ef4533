"""What an operator may choose: every mistake is told at once, by its name, and no secret with it."""

from pathlib import Path

import pytest

from ingestor.settings import Feed, Settings, SettingsProblem, load_credentials, load_settings

SECRET = "hunter2-do-not-show"


def problems(environment: dict[str, str], config: Path | None = None) -> list[str]:
    """The lines that refuse this configuration."""
    with pytest.raises(SettingsProblem) as caught:
        load_settings(config, environment)
    return str(caught.value).splitlines()


def test_nothing_needs_to_be_set() -> None:
    """The defaults work on one machine, and listen on loopback only."""
    settings = load_settings(None, {"PATH": "/bin"})
    assert settings.redis_url.get_secret_value() == "redis://127.0.0.1:6379/0"
    assert settings.namespace == "quotes"
    assert settings.feed is Feed.IEX
    assert settings.url == "wss://stream.data.alpaca.markets/v2/iex"
    assert settings.http_host_port == ("127.0.0.1", 9108)
    assert settings.symbol_limit is None


@pytest.mark.parametrize(
    ("feed", "path"),
    [("sip", "v2/sip"), ("delayed_sip", "v2/delayed_sip"), ("boats", "v1beta1/boats"), ("test", "v2/test")],
)
def test_each_feed_has_its_address(feed: str, path: str) -> None:
    """Unless a full address overrides it."""
    assert load_settings(None, {"QUOTEBUS_FEED": feed}).url == f"wss://stream.data.alpaca.markets/{path}"
    both = {"QUOTEBUS_FEED": feed, "QUOTEBUS_FEED_URL": "ws://127.0.0.1:1/x"}
    assert load_settings(None, both).url == "ws://127.0.0.1:1/x"


def test_all_problems_are_told_together() -> None:
    """Each by the variable that the operator typed."""
    wrong = {
        "QUOTEBUS_REDIS_URL": "http://x",
        "QUOTEBUS_FEED": "nasdaq",
        "QUOTEBUS_FEED_URL": "https://x",
        "QUOTEBUS_NAMESPACE": "a b",
        "QUOTEBUS_HTTP": "9108",
        "QUOTEBUS_SYMBOL_LIMIT": "0",
        "QUOTEBUS_STREAM_MAXLEN": "many",
        "QUOTEBUS_GRACE_S": "-1",
        "QUOTEBUS_QUEUE_QUOTES": "1",
        "QUOTEBUS_LOG_LEVEL": "loud",
        "QUOTEBUS_LOG_FORMAT": "xml",
        "QUOTEBUS_REDIS_ULR": "x",
    }
    found = problems(wrong)
    assert len(found) == len(wrong)
    for name in wrong:
        assert any(name in line for line in found), name


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("QUOTEBUS_REDIS_ULR", "QUOTEBUS_REDIS_URL"),
        ("QUOTEBUS_SYMBOLS_LIMIT", "QUOTEBUS_SYMBOL_LIMIT"),
        ("QUOTEBUS_LOGLEVEL", "QUOTEBUS_LOG_LEVEL"),
        ("QUOTEBUS_MAXLEN", "QUOTEBUS_STREAM_MAXLEN"),
    ],
)
def test_an_unknown_variable_is_told_with_the_one_that_was_meant(name: str, meant: str) -> None:
    """A misspelt setting is no setting."""
    assert problems({name: "1"}) == [f"{name}: no such setting; did you mean {meant}?"]


def test_an_unknown_variable_like_no_other_is_told_all_the_same() -> None:
    """Without a guess; those of other programs are no business of ours."""
    assert problems({"QUOTEBUS_ZZZZZZ": "1", "REDIS_ULR": "x"}) == ["QUOTEBUS_ZZZZZZ: no such setting"]


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    """What it does not set, the file does."""
    config = tmp_path / "quotebus.toml"
    config.write_text('namespace = "from_file"\nfeed = "sip"\nsymbol_limit = 30\ngrace_s = 5\n')
    settings = load_settings(config, {"QUOTEBUS_NAMESPACE": "from_env"})
    assert (settings.namespace, settings.feed, settings.symbol_limit) == ("from_env", Feed.SIP, 30)
    assert settings.grace_s == 5.0


def test_only_the_given_environment_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the process's own behind its back."""
    monkeypatch.setenv("QUOTEBUS_NAMESPACE", "process")
    assert load_settings(None, {}).namespace == "quotes"


def test_a_variable_that_is_set_to_nothing_is_not_set(tmp_path: Path) -> None:
    """As an environment file leaves it; an empty limit is one to be learnt."""
    config = tmp_path / "quotebus.toml"
    config.write_text('namespace = "from_file"\n')
    settings = load_settings(config, {"QUOTEBUS_SYMBOL_LIMIT": "", "QUOTEBUS_NAMESPACE": ""})
    assert settings.symbol_limit is None
    assert settings.namespace == "from_file"


def test_a_misspelt_setting_of_the_file_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    """In the file's own spelling."""
    config = tmp_path / "quotebus.toml"
    config.write_text('redis_ulr = "x"\n')
    (line,) = problems({}, config)
    assert line == "redis_ulr: no such setting; did you mean redis_url?"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('QUOTEBUS_FEED = "sip"', "QUOTEBUS_FEED: no such setting in a file; there it is called feed"),
        ('quotebus_feed = "sip"', "quotebus_feed: no such setting in a file; there it is called feed"),
        (
            '[quotebus]\nfeed = "sip"',
            "[quotebus]: settings stand in no table; write them at the top of the file",
        ),
        (
            'APCA_API_KEY_ID = "PK"',
            "APCA_API_KEY_ID: keys do not stand in this file; set APCA_API_KEY_ID or APCA_API_KEY_ID_FILE "
            "in the environment",
        ),
    ],
)
def test_a_setting_that_is_written_otherwise_in_a_file_is_told_how(
    tmp_path: Path, content: str, said: str
) -> None:
    """As a variable, in capitals, within a table, or a key that stands elsewhere."""
    config = tmp_path / "quotebus.toml"
    config.write_text(content)
    assert problems({}, config) == [said]


WRONG = {
    "feed": (
        "nasdaq",
        "is not one of 'iex', 'sip', 'delayed_sip', 'boats', 'overnight' or 'test'; the default is iex",
    ),
    "feed_url": ("https://x", "must begin with ws:// or wss://"),
    "rest_url": (
        "https://[bad",
        "has a host that is none, perhaps a bracket too few; write https://HOST[:PORT]",
    ),
    "trading_url": (
        "https://h:99999",
        "has a port that is not between 1 and 65535; write https://HOST[:PORT]",
    ),
    "namespace": ("a b", "): 'a b' is not usable: take 1 to 64 letters, digits or any of _ . : -"),
    "http": ("9108", "must be HOST:PORT, for example 127.0.0.1:9108"),
    "symbol_limit": ("0", "is too small; the least is 1"),
    "stream_maxlen": ("many", "is no whole number; the default is 50000"),
    "stream_max_age_s": ("inf", "is no finite number; the default is 86400.0"),
    "forget_after_s": ("0", "is too small; the least is 1"),
    "sweep_every_s": ("0", "is too small; it must be more than 0"),
    "grace_s": ("nan", "is no finite number; the default is 60.0"),
    "memory_bytes": ("64 MegaBytes", "has a unit that is none; write it as 64MiB, 1GB or 1048576"),
    "spool_bytes": ("lots", "is no number of bytes; write it as 64MiB, 1GB or 1048576"),
    "spool_max_age_s": ("-1", "is too small; it must be more than 0"),
    "replay_s": ("1h", "is no number; the default is 30.0"),
    "replay_bytes": ("-5", "is no number of bytes"),
    "drain_s": ("soon", "is no number; the default is 8.0"),
    "market_hours": ("sometimes", "must be auto, always, or one of the feeds"),
    "mute_after_s": ("-0.5", "is too small; the least is 0"),
    "quiet_after_s": ("x", "is no number"),
    "vendor_lag_limit_s": ("x", "is no number"),
    "reconnect_first_s": ("4000", "is too large; the most is 3600"),
    "reconnect_longest_s": ("0", "is too small; it must be more than 0"),
    "reconnect_attempts": ("1.5", "is no whole number"),
    "instance": ("x" * 101, "is too long; the most is 100 characters"),
    "log_level": ("loud", "is not one of debug, info, warning, error"),
    "log_format": ("xml", "is not one of auto, json, console"),
}
ANOTHER_SCRIPT = {
    "memory_bytes": "\u0666\u0664MiB",
    "spool_bytes": "\uff16\uff14MiB",
    "replay_bytes": "\u0663\u0662MiB",
    "http": "127.0.0.1:\u0669\u0661\u0660\u0668",
    "stream_maxlen": "\u0665\u0660",
    "symbol_limit": "\u0663\u0660",
    "replay_s": "\u0663\u0660",
}
"""Digits that Python takes for such."""
TAKES_ANY = {"redis_url", "spool_dir", "http_names"}
"""Settings whose value is any text, and the one whose value is never shown."""


def test_every_setting_has_a_wrong_value_here() -> None:
    """So that none is added without its words."""
    assert WRONG.keys() | TAKES_ANY >= Settings.model_fields.keys()


@pytest.mark.parametrize(
    "size", ["1,048,576", "2,5GB", "32.MiB", "64MiB/2", "4GiB-1", "3000000.5.6GB", "1e9"]
)
def test_what_stands_behind_a_size_is_not_passed_over(size: str) -> None:
    """It would be another number than whoever wrote it meant."""
    (line,) = problems({"QUOTEBUS_REPLAY_BYTES": size})
    assert "is no number of bytes" in line


@pytest.mark.parametrize("name", ANOTHER_SCRIPT)
def test_digits_of_another_script_are_no_number(name: str) -> None:
    """Sizes, ports, counts and times alike: who reads the setting may not know them."""
    (line,) = problems({f"QUOTEBUS_{name.upper()}": ANOTHER_SCRIPT[name]})
    assert line.startswith(f"{name} (QUOTEBUS_{name.upper()}): '{ANOTHER_SCRIPT[name]}' ")
    assert any(said in line for said in (" is no number", " is no whole number", " must be HOST:PORT"))


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_value_is_told_with_the_value_the_reason_and_the_remedy(name: str) -> None:
    """In our words, and by the names of variable and file."""
    value, said = WRONG[name]
    (line,) = problems({f"QUOTEBUS_{name.upper()}": value})
    assert line.startswith(f"{name} (QUOTEBUS_{name.upper()}): '{value[:20]}")
    assert said in line
    assert len(line) < 250
    for word in ("Input should", "valid", "pattern", "ByteSize", "parse", "Value error"):
        assert word not in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "namespace = 5",
            "namespace (QUOTEBUS_NAMESPACE): 5 is no text; in a TOML file, write it between quotes",
        ),
        ("grace_s = [1]", "grace_s (QUOTEBUS_GRACE_S): [1] is no number; the default is 60.0"),
        ("symbol_limit = 2.5", "symbol_limit (QUOTEBUS_SYMBOL_LIMIT): 2.5 is no whole number"),
        (
            "redis_url = 5",
            "redis_url (QUOTEBUS_REDIS_URL): is no text; in a TOML file, write it between quotes",
        ),
    ],
)
def test_a_value_of_another_type_in_a_file_is_told_in_words(tmp_path: Path, content: str, said: str) -> None:
    """And a secret one without the value."""
    config = tmp_path / "quotebus.toml"
    config.write_text(content)
    assert problems({}, config) == [said]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUOTEBUS_SERVICE_HOST", "10.96.0.7"),
        ("QUOTEBUS_SERVICE_HOST", "fd00::7"),
        ("QUOTEBUS_SERVICE_PORT", "9108"),
        ("QUOTEBUS_SERVICE_PORT_METRICS", "9108"),
        ("QUOTEBUS_PORT", "tcp://10.96.0.7:9108"),
        ("QUOTEBUS_PORT", "tcp://[fd00::7]:9108"),
        ("QUOTEBUS_PORT_9108_TCP", "tcp://10.96.0.7:9108"),
        ("QUOTEBUS_PORT_9108_TCP_PROTO", "tcp"),
        ("QUOTEBUS_PORT_9108_TCP_PORT", "9108"),
        ("QUOTEBUS_PORT_9108_TCP_ADDR", "10.96.0.7"),
        ("QUOTEBUS_PORT_53_UDP", "udp://10.96.0.7:53"),
        ("QUOTEBUS_REDIS_PORT", "tcp://10.96.0.8:6379"),
        ("QUOTEBUS_REDIS_SERVICE_HOST", "10.96.0.8"),
        ("QUOTEBUS_REDIS_MASTER_2_PORT_6379_TCP_ADDR", "10.96.0.8"),
        ("QUOTEBUS_HTTP_SERVICE_PORT_WEB", "80"),
        ("QUOTEBUS_HTTP_PORT_80_TCP", "tcp://10.96.0.9:80"),
    ],
)
def test_what_kubernetes_sets_for_a_service_is_no_mistake(name: str, value: str) -> None:
    """A Service called `quotebus`, or `quotebus-` and something, gives it to every pod of its namespace."""
    assert load_settings(None, {name: value}) == load_settings(None, {})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("QUOTEBUS_PORT", "9108"),
        ("QUOTEBUS_HTTP_PORT", "9108"),
        ("QUOTEBUS_REDIS_PORT", "6379"),
        ("QUOTEBUS_REDIS_HOST", "10.0.0.1"),
        ("QUOTEBUS_SERVICE_HOST", "my host"),
        ("QUOTEBUS_SERVICE", "10.0.0.1"),
        ("QUOTEBUS_PORT_9108_TCP", "yes"),
        ("QUOTEBUS_SERVICE_PORT_METRICS", "many"),
        ("QUOTEBUS_SYMBOLS_LIMIT", "30"),
    ],
)
def test_a_misspelt_setting_that_looks_like_a_service_s_is_told_all_the_same(name: str, value: str) -> None:
    """What an operator wrote has not both the name and the value."""
    (line,) = problems({name: value})
    assert line.startswith(f"{name}: no such setting")


@pytest.mark.parametrize(
    ("content", "says"), [(b"feed = \n", "not TOML"), (b"\xff", "not UTF-8"), (None, "is not there")]
)
def test_a_bad_file_is_told_beside_the_other_problems(
    tmp_path: Path, content: bytes | None, says: str
) -> None:
    """With its path."""
    config = tmp_path / "quotebus.toml"
    if content is not None:
        config.write_bytes(content)
    found = problems({"QUOTEBUS_ZZZ": "1", "QUOTEBUS_FEED": "x"}, config)
    assert len(found) == 3
    assert any(str(config) in line and says in line for line in found)


@pytest.mark.parametrize(
    "url",
    [
        f"http://user:{SECRET}@host",
        f"redis://user:{SECRET}@host:port/0",
        f"redis://:{SECRET}",
        f"redis://user:{SECRET}@host:99999",
        SECRET,
    ],
)
def test_no_password_is_part_of_a_refusal(url: str) -> None:
    """Nor of a repr."""
    environment = {"QUOTEBUS_REDIS_URL": url, "QUOTEBUS_FEED": "x"}
    found = problems(environment)
    assert len(found) == 2
    assert SECRET not in "\n".join(found)
    assert any("QUOTEBUS_REDIS_URL" in line for line in found)


@pytest.mark.parametrize("name", ["feed_url", "rest_url", "trading_url"])
@pytest.mark.parametrize(
    "url",
    [
        f"wss://user:{SECRET}@h:99999/x",
        f"https://user:{SECRET}@h:99999",
        f"wss://user:{SECRET}@[::1/x",
        f"wss://user:a@b/{SECRET}@h#x",
        f"wss://h:0/x?token={SECRET}",
        f"https://h:0/x?token={SECRET}",
    ],
)
def test_no_password_is_part_of_a_refused_address(name: str, url: str) -> None:
    """The rest of it is shown, with the reason."""
    (line,) = problems({f"QUOTEBUS_{name.upper()}": url})
    assert line.startswith(f"{name} (QUOTEBUS_{name.upper()}): '{url[:5]}")
    assert "; write " in line or "must b" in line
    assert SECRET not in line


def test_no_password_is_part_of_a_repr() -> None:
    """Nor of the text of the settings."""
    settings = load_settings(None, {"QUOTEBUS_REDIS_URL": f"redis://u:{SECRET}@h:1/2"})
    assert SECRET not in repr(settings) + str(settings) + str(settings.model_dump())
    assert settings.redis_url.get_secret_value() == f"redis://u:{SECRET}@h:1/2"


@pytest.mark.parametrize(
    "url", ["redis://h", "rediss://u:p@h:1/2", "unix:///tmp/r.sock?db=1", "redis://[::1]:6379"]
)
def test_every_kind_of_address_is_taken(url: str) -> None:
    """With and without a password."""
    assert load_settings(None, {"QUOTEBUS_REDIS_URL": url}).redis_url.get_secret_value() == url


@pytest.mark.parametrize(
    ("address", "host_port"),
    [("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:9108", ("::1", 9108)), ("localhost:0", ("localhost", 0))],
)
def test_a_listening_address_is_split(address: str, host_port: tuple[str, int]) -> None:
    """The brackets of IPv6 go."""
    assert load_settings(None, {"QUOTEBUS_HTTP": address}).http_host_port == host_port


@pytest.mark.parametrize("address", ["9108", ":9108", "host:", "host:x", "host:65536", "host:-1"])
def test_half_a_listening_address_is_refused(address: str) -> None:
    """With an example of a whole one."""
    assert "127.0.0.1:9108" in problems({"QUOTEBUS_HTTP": address})[0]


@pytest.mark.parametrize(
    ("key", "secret"),
    [
        ("APCA_API_KEY_ID", "APCA_API_SECRET_KEY"),
        ("ALPACA_API_KEY", "ALPACA_SECRET_KEY"),
        ("APCA_API_KEY_ID", "ALPACA_SECRET_KEY"),
    ],
)
def test_credentials_come_from_either_pair_of_names(key: str, secret: str) -> None:
    """Without the end of the line that a file brings along."""
    found = load_credentials({key: "PK1", secret: f"{SECRET}\n"})
    assert (found.key, found.secret) == ("PK1", SECRET)
    assert SECRET not in repr(found)


@pytest.mark.parametrize("name", ["APCA_API_SECRET_KEY_FILE", "ALPACA_SECRET_KEY_FILE"])
def test_a_secret_may_stand_in_a_file(tmp_path: Path, name: str) -> None:
    """As containers mount it; its last newline is not part of it."""
    path = tmp_path / "secret"
    path.write_text(f"{SECRET}\n")
    assert load_credentials({"APCA_API_KEY_ID": "PK1", name: str(path)}).secret == SECRET


def test_missing_credentials_are_told_together() -> None:
    """By the names to set."""
    with pytest.raises(SettingsProblem) as caught:
        load_credentials({"APCA_API_KEY_ID": "", "ALPACA_SECRET_KEY": ""})
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines] == ["APCA_API_KEY_ID", "APCA_API_SECRET_KEY"]


@pytest.mark.parametrize(
    ("content", "says"), [(None, "is not there"), (b"\xff\xfe", "is UTF-16"), (b" \n", "is empty")]
)
def test_a_secret_file_without_a_secret_is_told(tmp_path: Path, content: bytes | None, says: str) -> None:
    """With its path, and never with what is in it."""
    path = tmp_path / "secret"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsProblem) as caught:
        load_credentials({"APCA_API_KEY_ID": SECRET, "APCA_API_SECRET_KEY_FILE": str(path)})
    assert str(caught.value).startswith(f"APCA_API_SECRET_KEY_FILE: {path} {says}")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "hours", "delay_s"),
    [
        ({}, "iex", 0),
        ({"QUOTEBUS_FEED": "delayed_sip"}, "delayed_sip", 900),
        ({"QUOTEBUS_FEED_URL": "ws://127.0.0.1:1/"}, "always", 0),
        ({"QUOTEBUS_FEED": "delayed_sip", "QUOTEBUS_FEED_URL": "ws://127.0.0.1:1/"}, "always", 0),
        (
            {"QUOTEBUS_FEED_URL": "ws://127.0.0.1:1/", "QUOTEBUS_MARKET_HOURS": "delayed_sip"},
            "delayed_sip",
            900,
        ),
        ({"QUOTEBUS_FEED": "delayed_sip", "QUOTEBUS_MARKET_HOURS": "always"}, "always", 900),
        ({"QUOTEBUS_MARKET_HOURS": "boats"}, "boats", 0),
    ],
)
def test_whose_hours_count(given: dict[str, str], hours: str, delay_s: float) -> None:
    """The feed's; none with a URL of one's own; and in any case what the operator says."""
    settings = load_settings(None, given)
    assert (settings.expected_hours, settings.watchdog_limits.delay_s) == (hours, delay_s)


def test_hours_of_no_feed_are_refused() -> None:
    """The message has the names to choose from."""
    with pytest.raises(SettingsProblem, match=r"QUOTEBUS_MARKET_HOURS.*must be auto, always.*iex"):
        load_settings(None, {"QUOTEBUS_MARKET_HOURS": "nyse"})


PASTED = {
    f'"{SECRET}"': "quotation marks",
    f"'{SECRET}'": "quotation marks",
    f"\u201c{SECRET}\u201d": "quotation marks",
    f'{SECRET}"': "quotation marks",
    f" {SECRET}": "blanks before or after",
    f"{SECRET}\t": "blanks before or after",
    f"\ufeff{SECRET}": "byte order mark",
    "<your secret here>": "placeholder in <\u2026>",
    "{SECRET}": "placeholder in {\u2026}",
    f"{SECRET[:4]} {SECRET[4:]}": "within it",
    f"{SECRET[:4]}\n{SECRET[4:]}": "within it",
    f"APCA_API_SECRET_KEY={SECRET}": "name of a variable",
    f"{SECRET}\u00e9": "character that no key has",
    f"{SECRET}\x07": "character that no key has",
    "  ": "nothing but blanks",
}


@pytest.mark.parametrize(("pasted", "says"), PASTED.items(), ids=[repr(says) for says in PASTED.values()])
def test_a_key_with_something_around_it_is_told_before_anything_is_sent(
    tmp_path: Path, pasted: str, says: str
) -> None:
    """In the variable and in the file alike, by name and remedy, and without any of it."""
    path = tmp_path / "secret"
    path.write_text(pasted + "\r\n", encoding="utf-8")
    given = {"APCA_API_KEY_ID": "PK123"}
    for name, value in (("APCA_API_SECRET_KEY", pasted), ("APCA_API_SECRET_KEY_FILE", str(path))):
        if name.endswith("_FILE") and says == "byte order mark":
            continue  # there it is the encoding's, and is taken away
        with pytest.raises(SettingsProblem) as caught:
            load_credentials({**given, name: value})
        told = str(caught.value)
        assert told.startswith(f"{name}: ")
        assert says in told or told.endswith(" is empty")
        assert SECRET not in told
        assert SECRET[4:] not in told


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_the_end_of_a_line_is_no_part_of_a_key(tmp_path: Path, end: str) -> None:
    """Files have one, and so has a variable made from a file; a byte order mark of the file is none either."""
    path = tmp_path / "secret"
    path.write_bytes(b"\xef\xbb\xbf" + f"{SECRET}{end}".encode())
    found = load_credentials({"APCA_API_KEY_ID": f"PK123{end}", "APCA_API_SECRET_KEY_FILE": str(path)})
    assert (found.key, found.secret) == ("PK123", SECRET)


def unreadable(folder: Path) -> dict[Path, str]:
    """Files that are no text, each with what is said of it."""
    found = {
        folder / "utf16": "is UTF-16",
        folder / "utf16be": "is UTF-16",
        folder / "latin": "line 2 that is not UTF-8",
        folder / "nul": "a NUL character in line 1",
        folder / "large": "more than 1048576 bytes",
        folder / "folder": "is a folder",
        folder / "missing": "is not there",
    }
    (folder / "utf16").write_text("APCA_API_KEY_ID=PK123\n", encoding="utf-16")
    (folder / "utf16be").write_bytes("feed = 1\n".encode("utf-16-be"))
    (folder / "latin").write_bytes(b"a = 1\nb = '\xe9'\n")
    (folder / "nul").write_bytes(b"ab = '\0'\n")
    (folder / "large").write_bytes(b"#" * 2_000_000)
    (folder / "folder").mkdir()
    return found


def test_a_file_that_is_no_text_is_a_sentence(tmp_path: Path) -> None:
    """As the TOML file, as the file of a key, and as that of the URL: with its name and the remedy."""
    for path, says in unreadable(tmp_path).items():
        with pytest.raises(SettingsProblem, match=says) as caught:
            load_settings(path, {})
        assert str(path) in str(caught.value)
        with pytest.raises(SettingsProblem, match=says):
            load_credentials({"APCA_API_KEY_ID": "PK123", "APCA_API_SECRET_KEY_FILE": str(path)})
        with pytest.raises(SettingsProblem, match=says):
            load_settings(None, {"QUOTEBUS_REDIS_URL_FILE": str(path)})


def test_a_toml_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    """As some editors save it."""
    path = tmp_path / "quotebus.toml"
    path.write_bytes(b"\xef\xbb\xbfnamespace = 'other'\n")
    assert load_settings(path, {}).namespace == "other"
