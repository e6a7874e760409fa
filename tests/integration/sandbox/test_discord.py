"""The Discord simulator refuses what Discord refuses, and answers in Discord's shape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from runbook.sandbox import Sandbox
from runbook.sandbox.vendors.control import Vendors


@pytest.fixture
def vendors(sandbox: Sandbox) -> Iterator[Vendors]:
    yield sandbox.vendors
    sandbox.vendors.reset("discord")


@pytest.fixture
def webhook(sandbox: Sandbox, vendors: Vendors) -> str:
    url: str = sandbox.settings()["discord"]["webhook_url"]
    return url


def embed(**parts: Any) -> dict[str, Any]:
    return {"embeds": [parts]}


ACCEPTED: dict[str, dict[str, Any]] = {
    "content at its limit": {"content": "x" * 2000},
    "title at its limit": embed(title="x" * 256),
    "description at its limit": embed(description="x" * 4096),
    "ten embeds": {"embeds": [{"title": "x"}] * 10},
    "25 fields": embed(fields=[{"name": "n", "value": "v"}] * 25),
    "field at its limits": embed(fields=[{"name": "n" * 256, "value": "v" * 1024}]),
    "footer at its limit": embed(footer={"text": "x" * 2048}),
    "author at its limit": embed(author={"name": "x" * 256}),
    "6000 characters in all": {"embeds": [{"description": "x" * 3000}] * 2},
}
REFUSED: dict[str, tuple[dict[str, Any], list[str]]] = {
    "content": ({"content": "x" * 2001}, ["content"]),
    "title": (embed(title="x" * 257), ["embeds", "0", "title"]),
    "description": (embed(description="x" * 4097), ["embeds", "0", "description"]),
    "eleven embeds": ({"embeds": [{"title": "x"}] * 11}, ["embeds"]),
    "26 fields": (embed(fields=[{"name": "n", "value": "v"}] * 26), ["embeds", "0", "fields"]),
    "field name": (embed(fields=[{"name": "n" * 257, "value": "v"}]), ["embeds", "0", "fields", "0", "name"]),
    "field value": (embed(fields=[{"name": "n", "value": "v" * 1025}]), ["embeds", "0", "fields", "0", "value"]),
    "empty field value": (embed(fields=[{"name": "n", "value": ""}]), ["embeds", "0", "fields", "0", "value"]),
    "footer": (embed(footer={"text": "x" * 2049}), ["embeds", "0", "footer", "text"]),
    "author": (embed(author={"name": "x" * 257}), ["embeds", "0", "author", "name"]),
    "color": (embed(title="x", color=0x1000000), ["embeds", "0", "color"]),
    "6001 characters in all": ({"embeds": [{"description": "x" * 3000}, {"description": "x" * 3001}]}, ["embeds"]),
    "a field that is none": (embed(fields=["text"]), ["embeds", "0", "fields", "0"]),
    "an embed that is none": ({"embeds": ["text"]}, ["embeds", "0"]),
    "username": ({"content": "x", "username": "x" * 81}, ["username"]),
}


@pytest.mark.parametrize("body", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_accepts_what_is_within_the_limits(webhook: str, vendors: Vendors, body: dict[str, Any]) -> None:
    answer = httpx.post(webhook, json=body)
    assert (answer.status_code, answer.content) == (204, b"")
    assert len(vendors.state("discord")["messages"]) == 1


@pytest.mark.parametrize(("body", "path"), REFUSED.values(), ids=REFUSED.keys())
def test_refuses_what_is_beyond_a_limit_and_says_where(
    webhook: str, vendors: Vendors, body: dict[str, Any], path: list[str]
) -> None:
    answer = httpx.post(webhook, json=body)
    assert answer.status_code == 400
    said = answer.json()
    assert (said["code"], said["message"]) == (50035, "Invalid Form Body")
    place = said["errors"]
    for part in path:
        place = place[part]
    assert {"code", "message"} <= place["_errors"][0].keys()
    assert vendors.state("discord")["messages"] == []


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_refuses_what_is_no_object(webhook: str, content: bytes) -> None:
    answer = httpx.post(webhook, content=content, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["code"]) == (400, 50109)


def test_refuses_an_empty_message(webhook: str) -> None:
    answer = httpx.post(webhook, json={"allowed_mentions": {"parse": []}})
    assert (answer.status_code, answer.json()["code"]) == (400, 50006)


def test_wait_answers_with_the_message(webhook: str) -> None:
    answer = httpx.post(webhook, params={"wait": "true"}, json={"content": "hello", "embeds": [{"title": "t"}]})
    assert answer.status_code == 200
    message = answer.json()
    # What Discord's published specification requires of a message.
    required = {
        "type", "content", "mentions", "mention_roles", "attachments", "embeds", "timestamp", "edited_timestamp",
        "flags", "components", "id", "channel_id", "author", "pinned", "mention_everyone", "tts",
    }  # fmt: skip
    assert required <= message.keys()
    assert message["id"].isdigit()
    assert (message["content"], message["embeds"]) == ("hello", [{"type": "rich", "title": "t"}])


def test_a_message_can_be_edited(webhook: str, vendors: Vendors) -> None:
    first = httpx.post(webhook, params={"wait": "true"}, json={"content": "one"}).json()
    edited = httpx.patch(f"{webhook}/messages/{first['id']}", json={"content": "two"})
    assert edited.status_code == 200
    assert edited.json()["edited_timestamp"]
    assert [m["content"] for m in vendors.state("discord")["messages"]] == ["two"]
    unknown = httpx.patch(f"{webhook}/messages/1", json={"content": "two"})
    assert (unknown.status_code, unknown.json()["code"]) == (404, 10008)


def test_rate_limit_says_how_long_as_a_float_and_ends(webhook: str, vendors: Vendors) -> None:
    vendors.change("discord", mode="rate_limited", retry_after=0.25, times=1)
    answer = httpx.post(webhook, json={"content": "x"})
    assert answer.status_code == 429
    assert answer.json()["retry_after"] == 0.25
    assert answer.json()["global"] is False
    assert {"retry-after", "x-ratelimit-remaining", "x-ratelimit-reset-after"} <= set(answer.headers)
    assert httpx.post(webhook, json={"content": "x"}).status_code == 204


def test_a_deleted_webhook_stays_unknown(webhook: str, vendors: Vendors) -> None:
    vendors.change("discord", mode="unknown_webhook")
    for _ in range(2):
        answer = httpx.post(webhook, json={"content": "x"})
        assert (answer.status_code, answer.json()["code"]) == (404, 10015)


def test_a_wrong_token_is_refused(webhook: str) -> None:
    answer = httpx.post(webhook + "x", json={"content": "x"})
    assert (answer.status_code, answer.json()["code"]) == (401, 50027)


def test_keeps_what_it_received_refused_or_not(webhook: str, vendors: Vendors) -> None:
    httpx.post(webhook, json={"content": "x" * 2001})
    httpx.post(webhook, json={"content": "fine"})
    assert [len(body["content"]) for body in vendors.state("discord")["received"]] == [2001, 4]
