"""Paths as routes: what stays, and what nobody may see."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runbook.connectors.routes import MOST_NAMES, route, routes


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", "/"),
        ("", "/"),
        ("/api/videos", "/api/videos"),
        ("/api/videos/", "/api/videos"),
        ("/api/videos/12345/comments", "/api/videos/:id/comments"),
        ("/api/v2/upload", "/api/v2/upload"),
        ("/u/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "/u/:id"),
        ("/u/clh3am8cv0000qwer1234abcd", "/u/:id"),
        ("/u/01ARZ3NDEKTSV4RRFFQ69G5FAV", "/u/:id"),
        ("/u/507f1f77bcf86cd799439011", "/u/:id"),
        ("/u/deadbeef1", "/u/:id"),
        ("/u/user_29w83sxmDNGwOuEthce5gg", "/u/:id"),
        ("/u/ann@example.org/x", "/u/:id/x"),
        ("/u/ann%40example.org", "/u/:id"),
        ("/reset/eyJhbGciOiJIUzI1NiJ9abc123", "/reset/:id"),
        ("/search;sid=123?q=x#y", "/search"),
        ("https://www.example.org/api/videos/7?x=1", "/api/videos/:id"),
        ("/playback-sessions", "/playback-sessions"),
        ("/api-v2-internal/oauth2/callback", "/api-v2-internal/oauth2/callback"),
        ("/static/app.3f2a9c1b.js", "/static/app.:id.js"),
        ("/hls/seg-00012.ts", "/hls/:id.ts"),
        ("/api/content/content-7/likes", "/api/content/:id/likes"),
        ("/live/hls-playlist", "/live/hls-playlist"),
        ("/static/app-release", "/static/app-release"),
        ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/…"),
        ("/x/" + "y" * 60, "/x/:id"),
        ("/a\x00b/é", "/:id/:id"),
    ],
)
def test_paths_become_routes_without_ids(path: str, expected: str) -> None:
    assert route(path) == expected


def test_words_are_names_of_routes_as_long_as_they_are_few() -> None:
    few = [f"/api/{word}" for word in ("videos", "users", "feed")]
    assert routes(few) == {path: path for path in few}


def test_where_there_are_too_many_words_they_are_no_names_of_routes() -> None:
    words = [f"{a}{b}" for a in "abcdefgh" for b in "ijklmnop"]
    assert len(words) > MOST_NAMES
    found = routes([*(f"/u/{word}/videos" for word in words), "/u/12345678/videos", "/api/feed", "/u"])
    assert set(found.values()) == {"/u/:name/videos", "/u/:id/videos", "/api/feed", "/u"}


def test_names_at_two_places_are_both_taken_out() -> None:
    words = [f"{a}{b}" for a in "abcdefgh" for b in "ijklmnop"]
    assert set(routes(f"/u/{word}/{word[::-1]}" for word in words).values()) == {"/u/:name/:name"}


@given(st.lists(st.text(max_size=40), max_size=80))
def test_every_path_has_a_route_that_begins_with_a_slash(paths: list[str]) -> None:
    found = routes(paths)
    assert set(found) == set(paths)
    assert all(name.startswith("/") for name in found.values())
