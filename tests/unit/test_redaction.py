"""Redaction: what must go, what must stay, and how long it may take over a text made to hurt."""

# ruff: noqa: E501
from __future__ import annotations

import re
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runbook.redaction import (
    REDACTED,
    WITHHELD,
    Redactor,
    by_pattern,
    environment_secrets,
    is_secret_name,
    kept_labels,
    looks_like_sql,
    normalise_query,
    secrets_in_labels,
)

SECRET = "hunter2Canary"
HEX = "0123456789abcdef" * 4
BLIND = Redactor()
"""Knows no secret: all that it finds it finds by shape."""


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://web:{SECRET}@db:5432/app",
        f"could not connect to postgres://web:{SECRET}@db/app?sslmode=require (refused)",
        f"redis://:{SECRET}@cache:6379/0",
        f"postgresql://web:{SECRET}%40%2F@db/app",
        f"postgresql://web:a@b{SECRET}@db/app",
        f"postgresql://web:a/b{SECRET}@db/app",
        f"postgresql://web:12345{SECRET}@db/app",
        f"postgresql://h1:5432,h2:5432/app postgresql://web:{SECRET}@h/app",
        f"a://u:{SECRET}@h,b://u:{SECRET}@h",
        f"postgresql://db/app?user=web&password={SECRET}&sslmode=require",
        f"host=db user=web password={SECRET} dbname=app",
        f"host=db password='{SECRET} x' dbname=app",
        f"host=db password='it\\'s {SECRET}' dbname=app",
        f"host=db password = {SECRET}",
        f"host=db password='{SECRET} and the rest was cut",
        f'{{"password": "{SECRET}"}}',
        f'{{"password":"a\\"{SECRET}"}}',
        f'{{"body": "{{\\"password\\": \\"{SECRET}\\"}}"}}',
        f"{{'password': '{SECRET}'}}",
        f'{{"client_secret": "{SECRET}", "a": 1}}',
        f'{{"password": "{SECRET} and the rest was cut',
        f'token = "{SECRET}"',
        f'secret = """{SECRET}"""',
        f"secret = '''{SECRET}'''",
        f"API_KEY={SECRET}",
        f"SECRET_KEY: {SECRET}",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"session_token={SECRET}",
        f"x-api-key: {SECRET}",
        f"PGPASSWORD={SECRET} psql",
        f"ALTER ROLE web PASSWORD '{SECRET}'",
        f"ALTER ROLE web PASSWORD E'a\\'{SECRET}'",
        f"Authorization: Bearer {SECRET}",
        f"authorization: {SECRET}",
        f'"Authorization": "Basic {SECRET}="',
        f"Proxy-Authorization: Digest username=x, response={SECRET}",
        f"-H 'Authorization: token {SECRET}'",
        f"curl -H 'bearer {SECRET}'",
        f"Set-Cookie: sid={SECRET}; HttpOnly",
        f"https://discord.com/api/webhooks/123456789/{SECRET}-x_y",
        f"https://discordapp.com/api/v10/webhooks/123456789/{SECRET}",
        f"https://hooks.slack.com/services/T0/B0/{SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}",
        f"-----BEGIN PGP PRIVATE KEY BLOCK-----\n{SECRET}\n-----END PGP PRIVATE KEY BLOCK-----",
        f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{SECRET}",
        f"sk_live_{SECRET}",
        f"whsec_{SECRET}",
        f"sk-ant-api03-{SECRET}-abcdef",
        f"ghp_{SECRET}{SECRET}",
        f"github_pat_{SECRET}{SECRET}",
        f"glpat-{SECRET}xyz0",
        f"xoxb-{SECRET}",
        f"npm_{SECRET}{SECRET}{SECRET}",
        f"sntrys_{SECRET}{SECRET}",
        f"SG.{SECRET}abcd.{SECRET}abcd",
        f"SCRAM-SHA-256$4096:{SECRET}==${SECRET}=:{SECRET}=",
    ],
)
def test_what_has_the_shape_of_a_secret_goes(text: str) -> None:
    clean = BLIND.text(text)
    assert SECRET not in clean
    assert REDACTED in clean
    assert BLIND.text(clean) == clean


@pytest.mark.parametrize(
    "text",
    [
        "AKIAIOSFODNN7EXAMPLE",
        "AIzaSyA-1234567890abcdefghijklmnopqrstu",
        "sntryu_" + HEX,
        "md5" + HEX[:32],
        "shpat_" + HEX[:32],
    ],
)
def test_a_token_of_a_vendor_goes_whole(text: str) -> None:
    assert BLIND.text(f"key {text}, next") == f"key {REDACTED}, next"


@pytest.mark.parametrize(
    "text",
    [
        "postgres: web app 127.0.0.1(1234) idle",
        "postgres: web app [local] idle in transaction",
        "postgres: checkpointer ",
        "SELECT id, token FROM sessions WHERE user_id = 5 ORDER BY created_at",
        "UPDATE users SET password = $1, token = %(token)s WHERE secret = ? AND x = 1",
        "UPDATE users SET password = NULL WHERE id = 1",
        "2026-01-01T00:00:00.000+00:00",
        "550e8400-e29b-41d4-a716-446655440000",
        "deploy of 9fceb02d0ae598e95dc970b74767f19372d61af8 at 12:00",
        "sha256:" + HEX,
        "token expired",
        "token validation failed",
        "basic authentication is off, bearer authentication is on",
        "password authentication failed for user \"web\"",
        "the password is wrong",
        "auth: ok",
        "index pk_subscriptions_account on rk_table, sk_somethinglonger",
        "task-force-one-hundred-and-something",
        "http://localhost:3000/users/@me",
        "https://registry.npmjs.com:443/@scope/package",
        "http://[::1]:8080/x@y",
        "https://example.com/a:b@c",
        "postgresql://web@db:5432/app",
        "mail to somebody@example.com: done",
        "git@github.com:owner/repository.git",
        "12:30:45.123 GET /api/v1/users?id=5&page=2 200",
        'connection to server at "db" (10.0.0.1), port 5432 failed: FATAL: role "web" does not exist',
        "C:\\Users\\x",
        "",
    ],
)  # fmt: skip
def test_what_is_harmless_stays_to_the_byte(text: str) -> None:
    assert BLIND.text(text) == text


def test_quotes_around_a_secret_stay_so_that_json_stays_json() -> None:
    assert BLIND.text('{"password": "x1y2z3", "a": 1}') == '{"password": "[redacted]", "a": 1}'


def test_values_under_a_secret_name_go_whatever_their_type() -> None:
    given_ = {
        "a": 1,
        "password": "x",
        "db_password": 123456,
        "token": None,
        "nested": [{"api_key": "k", "n": 2}],
        "dsn": "",
    }
    assert BLIND.value(given_) == {
        "a": 1,
        "password": REDACTED,
        "db_password": REDACTED,
        "token": None,
        "nested": [{"api_key": REDACTED, "n": 2}],
        "dsn": "",
    }


def test_a_row_keeps_the_names_by_which_sessions_are_told_apart() -> None:
    row = {
        "application_name": "fetch-worker-2",
        "client": "10.0.0.7",
        "pid": 4711,
        "gid": "tx-5",
        "state": "idle in transaction",
    }
    assert BLIND.row(row) == row


def test_a_row_loses_literals_of_sql_at_every_depth_and_values_of_secret_columns() -> None:
    row = {
        "query": "SELECT 'data' WHERE a = 5",
        "passwd": "x",
        "nested": {"query": ["UPDATE t SET a = 'data'"]},
        "n": 5,
    }
    assert BLIND.row(row) == {
        "query": "SELECT ? WHERE a = ?",
        "passwd": REDACTED,
        "nested": {"query": ["UPDATE t SET a = ?"]},
        "n": 5,
    }


@pytest.mark.parametrize(
    ("configured", "shown"),
    [
        (f"postgresql://web:{SECRET}@db/app", SECRET),
        ("postgresql://web:p%40ss%2Fword@db/app", "p@ss/word"),
        ("postgresql://web:p%40ss%2Fword@db/app", "p%40ss%2fword"),
        ("postgresql://web:p[ss]w0rd@db/app", "p[ss]w0rd"),
        ("postgresql://web:p@ssw0rd@db/app", "p@ssw0rd"),
        (f"postgresql://web:{SECRET}@h1:5432,h2:5432/app", SECRET),
        (f"postgresql:///app?user=web&password={SECRET}", SECRET),
        (f"host=db user=web password={SECRET}", SECRET),
        ("host=db password='it\\'s 0ne secret'", "it's 0ne secret"),
        ("https://discord.com/api/webhooks/1/abcdefghijklmnopqrstuvwxyz", "abcdefghijklmnopqrstuvwxyz"),
        (f"https://{SECRET}@sentry.example/1", SECRET),
        ('qu"ote\\back', 'qu\\"ote\\\\back'),
        ("a<b>&c'd", "a&lt;b&gt;&amp;c&#x27;d"),
    ],
)
def test_what_is_secret_inside_a_configured_secret_is_known_in_every_encoding(configured: str, shown: str) -> None:
    assert shown not in Redactor([configured]).text(f"the server said {shown}, twice {shown}")


@pytest.mark.parametrize(
    ("configured", "text"),
    [
        ("postgresql://web_app:web_app@db/billing", "web_app runs in billing"),
        ("postgresql://web:billing@db/billing", "billing is slow"),
        ("host=database user=web password=database dbname=app", "the database is full"),
        ("postgresql://postgres:postgres@localhost/postgres", "postgres: checkpointer"),
        ("postgresql://web:password@db/app", "password authentication failed"),
        ("postgresql://web:abc@db/app", "abc"),
        ("redact", "[redacted]"),
    ],
)
def test_a_weak_password_does_not_destroy_other_texts(configured: str, text: str) -> None:
    assert Redactor([configured]).text(text) == text


def test_a_secret_that_is_not_unicode_does_no_harm() -> None:
    assert Redactor(["caf\udce9-secret"]).text("x caf\udce9-secret y") == f"x {REDACTED} y"


def test_a_redactor_that_learns_more_forgets_nothing() -> None:
    assert (
        Redactor(["first-secret"]).with_secrets(["other-secret"]).text("first-secret other-secret")
        == f"{REDACTED} {REDACTED}"
    )


SECRETS = st.text(min_size=6, max_size=40).filter(lambda s: "redacted" not in s.lower() and s not in REDACTED)


@given(SECRETS, st.text(), st.text())
@example("SELECT", "", " 1")
@example("a  b 'c", "SELECT '", "'")
@settings(deadline=None, max_examples=200)
def test_a_known_secret_survives_nowhere(secret: str, before: str, after: str) -> None:
    from runbook.redaction import _COMMON_WORDS

    if secret.lower() in _COMMON_WORDS:
        return
    redactor = Redactor([secret])
    text = f"{before}{secret}{after}"
    assert secret not in redactor.text(text)
    walked = redactor.value({"a": [text], text: {"b": text}})
    assert all(secret not in shown for shown in (walked["a"][0], *walked))
    assert secret not in redactor.row({"query": text})["query"]
    assert secret not in redactor.row({"query": f"SELECT {text}"})["query"]


TEXTS = st.text() | st.lists(
    st.sampled_from(
        ["password", "token", "=", ":", "'", '"', "\\", " ", "://", "u:p@h", "Bearer ", "x1Y2z3w4v5", "$1", "?", "[redacted]", "\n", "/",
         "Authorization", "select ", "E'", "$$", "/*", "*/", "--", ",", "5", "é", "$a$"]
    ), max_size=12,
).map("".join)  # fmt: skip


FRAGMENTS = st.sampled_from(
    [
        "PASSWORD=",
        "password:",
        "'x'",
        "secret",
        "token=",
        "Token",
        "abc123DEF",
        "key=\\",
        "api_key=v",
        "postgresql://u:p@h",
        "bearer",
        "Basic",
        "GENIEKEY",
        "sk-1",
        "sk_live_",
        "ghp_",
        "AKIA",
        "AKIAABCDEFGHIJKLMNOP",
        "eyJhbGciOi",
        "JXVCJ9",
        ".",
        "md5",
        "0123456789abcdef0123456789abcdef",
        "Cookie:",
        "a=b",
        "İ",
        "ſecret",
        "SCRAM-SHA-256$",
        "-----BEGIN",
        "PRIVATE",
        "KEY-----",
        "/api/webhooks/1/",
        "hooks.slack.com/services/",
        "x-amz-signature=",
        "npm_",
        "1",
        "=",
        ":",
        "'",
        '"',
        ",",
    ]
)


@given(st.lists(st.one_of(FRAGMENTS, st.text(max_size=4)), max_size=8).map("".join))
def test_what_is_not_searched_for_secrets_holds_none(text: str) -> None:
    assert Redactor().text(text) == by_pattern(text)


@given(TEXTS)
@settings(deadline=None, max_examples=400)
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once = BLIND.text(text)
    assert BLIND.text(once) == once


@given(TEXTS)
@settings(deadline=None, max_examples=400)
def test_normalising_twice_is_normalising_once(text: str) -> None:
    once = normalise_query(text)
    assert normalise_query(once) == once


# -- SQL --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "normal"),
    [
        ("select 1", "select ?"),
        ("select -1.5e-3, .5, 0xff, 1_000", "select -?"),
        ("select 'a'", "select ?"),
        ("select 'it''s' || 'b'", "select ? || ?"),
        ("select E'it\\'s' x", "select ? x"),
        ("select e'\\\\' , 'x'", "select ?"),
        ("select U&'\\0061' uescape '!', B'01', x'ff', N'a'", "select ? uescape ?"),
        ('select U&"d!0061t" from "T 1"', 'select U&"d!0061t" from "T 1"'),
        ("select $$it's$$, $tag$ $$ $tag$", "select ?"),
        ("select $1, $2 where a = $10", "select $1, $2 where a = $10"),
        ("select a from t where b in (1, 2,3)", "select a from t where b in (?)"),
        ("select t1.col2 from tab_3", "select t1.col2 from tab_3"),
        ('select "weird""name 5" from "x"', 'select "weird""name 5" from "x"'),
        ("select a -- secret 'x\nfrom t", "select a from t"),
        ("select /* it's */ a", "select a"),
        ("select /* a /* b */ secret */ c", "select c"),
        ("select /* a /* b */ cut", "select"),
        ("select a -- cut", "select a"),
        ("select 'cut off her", "select ?"),
        ("select E'cut \\", "select ?"),
        ("select $$cut", "select ?"),
        ("select $x$cut $x", "select ?"),
        ('select "cut', 'select "cut'),
        ("select a->>'k', b @> '{}', c::int, d ~* '^x'", "select a->>?, b @> ?, c::int, d ~* ?"),
        ("select a*-1,b/2", "select a*-?,b/?"),
        ("  select\n\t a  ", "select a"),
        ("select 1;select 2", "select ?;select ?"),
        ("select date '2026-01-01', interval '1 day'", "select date ?, interval ?"),
        ("set x = 'a', y=5", "set x = ?, y=?"),
        ("select größe, a$1 from t", "select größe, a$1 from t"),
        ("", ""),
    ],
)
def test_a_query_is_normalised(query: str, normal: str) -> None:
    assert normalise_query(query) == normal


@pytest.mark.parametrize(
    "text",
    ["select 1", " SELECT 1", "(select 1) union select 2", "/* c */ select 1", "/* cut", "-- c\nselect 1", "/*a*//*b*/ x",
     "with x as (select 1) select 2", "select'x'", "select*from t", "begin", "commit;", "insert into t values (1)", "DO $$x$$"],
)  # fmt: skip
def test_sql_is_recognised(text: str) -> None:
    assert looks_like_sql(text)


@pytest.mark.parametrize(
    "text",
    [
        "postgres: web idle",
        "fetch-worker-2",
        "lock_manager 7",
        "copy.service@3",
        "set:5",
        "analyze2",
        "selection of 5",
        "tablespace",
        "-- Boot 1 --",
        "START_REPLICATION x 0/1",
        "5",
        "",
    ],
)
def test_what_is_not_sql_is_left_alone(text: str) -> None:
    assert not looks_like_sql(text)


# -- labels -----------------------------------------------------------------------------------------------------------


def test_labels_that_name_things_are_kept_and_the_others_withheld() -> None:
    labels = {"severity": "critical", "service": "web", "customer": "somebody", "shard": "7"}
    assert kept_labels(labels) == {"severity": "critical", "service": "web", "customer": WITHHELD, "shard": WITHHELD}
    assert kept_labels(labels, also=["shard"])["shard"] == "7"


def test_a_label_that_is_named_like_a_secret_is_withheld_even_when_asked_for() -> None:
    assert kept_labels({"token": "x"}, also=["token"]) == {"token": WITHHELD}


def test_withheld_values_that_look_like_secrets_become_known() -> None:
    labels = {"api_key": "abc", "note": "a1b2c3d4", "team": "a1b2c3d4e5", "mood": "cheerful", "n": "12345678"}
    assert sorted(secrets_in_labels(labels)) == ["a1b2c3d4", "abc"]


@pytest.mark.parametrize(
    "name",
    ["password", "db_pass", "passwd", "PASSPHRASE", "auth", "Authorization", "oauth_token", "api-key", "x_secret"],
)
def test_a_name_of_a_secret_is_recognised(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["author", "authority", "bypass", "tests_passed", "passenger", "compass", "severity"])
def test_a_name_that_only_sounds_like_one_is_not(name: str) -> None:
    assert not is_secret_name(name)


def test_environment_variables_named_like_secrets_are_secrets() -> None:
    environ = {
        "DB_PASSWORD": "a",
        "GITHUB_TOKEN": "b",
        "STRIPE_API_KEY": "c",
        "RUNBOOK_POSTGRES__DSN": "d",
        "PATH": "/bin",
        "X_TOKEN": "",
    }
    assert environment_secrets(environ) == ["a", "b", "c", "d"]


# -- time -------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "a", "a-", "a_", "'", '"', "\\", "\\'", "$", "$a", "$$", "/*", "*/", "/**/", "--", "(", "?", "? ,", " ", "://", "a://b:", "a://b:c@", "x@",
    "eyJ-", "eyJaaaaaaaa.", "sk-", "xox", "token ", "token=", "password", "password ", "password=", "password='", 'password="', 'password=\\"',
    "password='\\", "Authorization:", "Authorization: ", "Bearer a", "-----BEGIN ", "-----BEGIN PRIVATE KEY-----", "-----END ", "E'\\", "e'", "1e", "1_",
    "/api/webhooks/1/", "SCRAM-SHA-256$1:a", "%", "=", "secret_",
]  # fmt: skip


def ratio(work: Callable[[str], object], unit: str, size: int) -> float:
    """How much longer twice the text takes, best of three each."""

    def best(length: int) -> float:
        text = unit * (length // len(unit))
        took = []
        for _ in range(3):
            began = time.process_time()
            work(text)
            took.append(time.process_time() - began)
        return min(took)

    return best(2 * size) / max(best(size), 1e-3)


KNOWING = Redactor([f"postgresql://web:{SECRET}{n}@db/app" for n in range(10)])


@pytest.mark.parametrize("unit", HOSTILE)
@pytest.mark.parametrize("work", [KNOWING.text, normalise_query, looks_like_sql], ids=["text", "normalise", "looks"])
def test_time_grows_with_the_text_and_not_with_its_square(work: Callable[[str], object], unit: str) -> None:
    assert ratio(work, unit, 40_000) < 4


def test_a_megabyte_is_cleaned() -> None:
    text = "".join(f"{word}{n}" for n, word in enumerate(HOSTILE * 4000))[:1_000_000]
    clean = KNOWING.text(text + f" postgresql://web:{SECRET}0@db/app")
    assert not re.search(SECRET, clean)


@pytest.mark.parametrize("name", ["release/2.4.0", "table/3", "update/web-1", "lock/5"])
def test_a_path_that_begins_with_a_word_of_sql_is_no_statement(name: str) -> None:
    assert Redactor().row({"release": name}) == {"release": name}


def test_a_statement_that_begins_with_a_comment_after_its_word_is_one() -> None:
    assert Redactor().row({"query": "SELECT/* x */'ann@example.com'"})["query"] == "SELECT ?"
