"""A Redis URL is read once and for all, and what is wrong with it is told without a secret."""

import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.asyncio.connection import parse_url

from wire.redis.options import OPTIONS, REFUSED
from wire.redis.url import BadRedisUrl, RedisUrl, Tls, parse_redis_url

PASSWORD = "Tr0ub4dor/3#?@:%+ ü"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", RedisUrl()),
        ("redis://h", RedisUrl(host="h")),
        ("REDIS://h:1", RedisUrl(host="h", port=1)),
        ("redis://h:1/", RedisUrl(host="h", port=1)),
        ("redis://h:1/7", RedisUrl(host="h", port=1, db=7)),
        ("redis://h:1?db=7", RedisUrl(host="h", port=1, db=7)),
        ("redis://h:1/7?db=7", RedisUrl(host="h", port=1, db=7)),
        ("redis:///3", RedisUrl(db=3)),
        ("redis://:6380", RedisUrl(port=6380)),
        ("redis://[::1]:6380/2", RedisUrl(host="::1", port=6380, db=2)),
        ("redis://[fe80::1%25eth0]", RedisUrl(host="fe80::1%eth0")),
        ("redis://10.0.0.7:6379/0\n", RedisUrl(host="10.0.0.7")),
        ("redis://:secret@h", RedisUrl(host="h", password="secret")),
        ("redis://u:secret@h", RedisUrl(host="h", user="u", password="secret")),
        ("redis://u@h", RedisUrl(host="h", user="u", password="")),
        ("redis://u:@h", RedisUrl(host="h", user="u", password="")),
        ("redis://h?username=u&password=secret", RedisUrl(host="h", user="u", password="secret")),
        ("redis://u%40x:a%2Fb%23c%3Fd%40e%25@h", RedisUrl(host="h", user="u@x", password="a/b#c?d@e%")),
        ("redis://u:p@ss@h", RedisUrl(host="h", user="u", password="p@ss")),
        ("unix:///run/redis.sock", RedisUrl(path="/run/redis.sock")),
        ("unix:///run/a%20b.sock?db=2", RedisUrl(path="/run/a b.sock", db=2)),
        ("unix://u:secret@/run/r.sock", RedisUrl(path="/run/r.sock", user="u", password="secret")),
        ("unix:///run/r.sock?password=secret", RedisUrl(path="/run/r.sock", password="secret")),
        ("redis://h?socket_timeout=0.5", RedisUrl(host="h", timeout_s=0.5)),
        ("redis://h?socket_connect_timeout=3", RedisUrl(host="h", connect_timeout_s=3.0)),
        ("redis://h?socket_keepalive=no&protocol=2", RedisUrl(host="h", keepalive=False)),
        ("rediss://h", RedisUrl(host="h", tls=Tls())),
        ("rediss://h?ssl_check_hostname=false", RedisUrl(host="h", tls=Tls(check_hostname=False))),
        ("rediss://h?ssl_check_hostname=False", RedisUrl(host="h", tls=Tls(check_hostname=False))),
        ("rediss://h?ssl_cert_reqs=none", RedisUrl(host="h", tls=Tls(cert_reqs="none"))),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", RedisUrl(host="h", tls=Tls(cert_reqs="none"))),
        ("rediss://h?ssl_min_version=TLSv1.3", RedisUrl(host="h", tls=Tls(min_version="TLSv1_3"))),
        ("rediss://h?ssl_min_version=772", RedisUrl(host="h", tls=Tls(min_version="TLSv1_3"))),
        ("rediss://h?ssl_ca_certs=/a/ca.pem", RedisUrl(host="h", tls=Tls(ca_certs="/a/ca.pem"))),
        (
            "rediss://h?ssl_certfile=/c&ssl_keyfile=/k&ssl_password=a%26b",
            RedisUrl(host="h", tls=Tls(certfile="/c", keyfile="/k", password="a&b")),
        ),
    ],
)
def test_what_a_url_means(url: str, expected: RedisUrl) -> None:
    """Host, port, socket, database, login, TLS and timeouts."""
    assert parse_redis_url(url) == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/quotes", r"names database 'quotes'; a database is a number.*namespace"),
        ("redis://h/0/1", "a database is a number"),
        ("redis://h/-1", "a database is a number"),
        ("redis://h/1.5", "a database is a number"),
        ("redis://h/1?db=2", "names two databases"),
        ("redis://h?db=x", "option db with a value that must be a number"),
        ("redis://h?nonsense=1", "option nonsense, which nobody knows; there are db, "),
        ("redis://h?ssl_ca_cert=/x", r"option ssl_ca_cert, which nobody knows; did you mean ssl_ca_certs\?"),
        ("redis://h?SOCKET_TIMEOUT=2", r"did you mean socket_timeout\?"),
        ("redis://h?protocol=3", "option protocol with a value that must be 2"),
        ("redis://h?socket_timeout=0", "option socket_timeout with a value that must be a number of seconds"),
        ("redis://h?socket_timeout=nan", "must be a number of seconds"),
        ("redis://h?socket_timeout=\u0663", "must be a number of seconds"),
        ("redis://h?socket_timeout=soon", "must be a number of seconds"),
        ("redis://h?socket_timeout=1&socket_timeout=2", "option socket_timeout twice"),
        ("redis://h?socket_timeout=", "option socket_timeout without a value"),
        ("redis://h?ssl_cert_reqs=none", "option ssl_cert_reqs, which needs rediss://"),
        ("rediss://h?ssl_check_hostname=maybe", "must be true or false"),
        ("rediss://h?ssl_cert_reqs=never", "must be required, optional or none"),
        ("rediss://h?ssl_min_version=1.1", r"must be 1\.2 or 1\.3"),
        ("rediss://h?ssl_keyfile=/k", "ssl_keyfile, which needs ssl_certfile"),
        ("rediss://h?ssl_password=x", "ssl_password, which needs ssl_certfile"),
        ("redis://h?decode_responses=true", "option decode_responses, which is refused: .*Leave it out"),
        ("redis://h?client_name=x", r"option client_name, which is refused: .*connect\(name="),
        ("redis://h?health_check_interval=3", "which is refused"),
        ("http://h", r"must begin with redis://, rediss:// or unix:// \(http"),
        ("localhost:6379", "must begin with redis://"),
        ("", "must begin with redis://"),
        ("redis:h", "must begin with redis://"),
        ("valkey://h", r"must begin .*write redis://"),
        ("redis+sentinel://a,b/mymaster", "Sentinels are not asked: give the address of the primary"),
        ("redis://h:port", "not readable, perhaps its port"),
        ("redis://h:99999", "not readable, perhaps its port"),
        ("redis://h:0", "port 0"),
        ("redis://[::1", "not readable"),
        ("redis://a,b", "a host that cannot be one"),
        ("redis://h/0#1", "has a # in it"),
        ("redis://h /0", "a space or a line end"),
        ("unix://", "names no socket"),
        ("unix://run/redis.sock", "with three slashes"),
    ],
)
def test_what_cannot_be_used_is_told_with_the_remedy(url: str, said: str) -> None:
    """Nothing is passed over in silence."""
    with pytest.raises(BadRedisUrl, match=said):
        parse_redis_url(url)


SECRETS = st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S")), min_size=6, max_size=24)


@given(SECRETS, st.sampled_from(["redis://u:{}@h:1/0", "rediss://:{}@h", "unix://u:{}@/run/r"]))
@example("12/34567@", "redis://u:{}@h:1/0")
@example("12?abcdef=ghijkl", "redis://u:{}@h:1/0")
@example("12?db=ghijkl", "redis://u:{}@h:1/0")
@example("1/quotes", "redis://u:{}@h:1/0")
@example("6379?nonsense", "redis://u:{}@h:1/0")
@example("timeout", "redis://u:{}@h:1/0")
def test_a_password_that_is_not_encoded_is_never_shown(secret: str, form: str) -> None:
    """Wherever its pieces come to stand: no four characters of it in a row are in the message."""
    try:
        url = parse_redis_url(form.format(secret))
    except BadRedisUrl as problem:
        said = str(problem)
        template = str_of_template()
        pieces = {secret[i : i + 4] for i in range(len(secret) - 3)}
        assert not {piece for piece in pieces if piece in said and piece not in template}, said
    else:
        # One that is a word of what is shown with any password tells nothing.
        other = parse_redis_url(form.format("another"))
        assert secret not in repr(url) + str(url) or secret in repr(other) + str(other)


def str_of_template() -> str:
    """All words that messages are made of, without any piece of a URL."""
    words = []
    for url in (
        "x://",
        "redis://h:x",
        "redis://h/x@",
        "redis://h?x@",
        "redis://h#",
        "unix://h",
        "redis://a,b",
    ):
        with pytest.raises(BadRedisUrl) as refusal:
            parse_redis_url(url)
        words.append(str(refusal.value))
    return " ".join([*words, *OPTIONS, *REFUSED, *REFUSED.values()])


@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_an_encoded_login_comes_back_as_it_was(user: str, password: str) -> None:
    """Any characters at all, as redis-py reads them too."""
    url = f"redis://{quote(user, safe='')}:{quote(password, safe='')}@h:1/2"
    read, theirs = parse_redis_url(url), parse_url(url)
    assert (read.user, read.password) == (user, password) == (theirs["username"], theirs["password"])


@given(st.sampled_from(sorted(OPTIONS)), st.text(max_size=12))
def test_a_value_is_read_or_refused_by_the_name_of_its_option(name: str, value: str) -> None:
    """Nothing else is ever raised."""
    scheme = "rediss" if OPTIONS[name].is_tls else "redis"
    said = name
    try:
        parse_redis_url(f"{scheme}://h?{name}={quote(value, safe='')}")
    except BadRedisUrl as problem:
        said = str(problem)
    assert re.search(rf"\b{name}\b", said)


@given(st.text(max_size=60))
def test_any_text_at_all_is_read_or_refused(text: str) -> None:
    """With one kind of error."""
    for url in (text, f"redis://{text}", f"redis://h/{text}", f"redis://h?{text}"):
        try:
            read: Any = parse_redis_url(url)
        except BadRedisUrl:
            continue
        assert read.path or read.host


def test_a_name_is_heeded_or_refused() -> None:
    """Never both."""
    assert not set(OPTIONS) & set(REFUSED)


def test_secrets_are_not_part_of_what_is_shown() -> None:
    """Neither of the address nor of its parts."""
    url = "rediss://u:{0}@h?ssl_certfile=/c&ssl_password={0}&ssl_ca_data={0}".format(quote(PASSWORD, safe=""))
    read = parse_redis_url(url)
    assert read.password == PASSWORD
    assert PASSWORD not in repr(read) + str(read)
    assert str(read) == "h:6379/0"
