"""Attacks on the studio, each refused: foreign hosts and origins, no key, ways out of the root, forbidden changes."""

import os

import pytest

pytest.importorskip("starlette", reason="the studio is not installed: pip install 'samgan[studio]'")
pytest.importorskip("httpx", reason="starlette's client for tests needs httpx")
pytest.importorskip("uvicorn", reason="the studio is not installed: pip install 'samgan[studio]'")

from starlette.testclient import TestClient
from studio import HOST, ORIGIN, TOKEN, make_client, make_run

from samgan.errors import UsageError
from samgan.studio.guard import Guard
from samgan.studio.places import Outside, Root
from samgan.studio.serve import Address, check_host

PATHS = ("/", "/data", "/train", "/static/page.css", "/nothing")


@pytest.fixture
def root(tmp_path, tiny_config):
    folder = tmp_path / "root"
    make_run(folder / "run", tiny_config)
    (tmp_path / "secret").mkdir()
    make_run(tmp_path / "secret" / "run", tiny_config)
    return folder


@pytest.mark.parametrize("path", PATHS)
def test_without_the_key_nothing_is_shown(root, path):
    answer = make_client(root, enter=False).get(path)
    assert answer.status_code == 403
    assert "run" not in answer.text.split("samgan studio printed")[0]


def test_a_part_is_refused_in_words_that_its_page_can_show(root):
    """As for a page that was open when the studio was started again; contact.js shows the words."""
    answer = make_client(root, enter=False).get("/train/now", params={"run": "run"}, headers={"hx-request": "true"})
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/plain; charset=utf-8")
    assert answer.text.startswith("Refused: ")
    assert "Open the link that samgan studio printed when it last started" in answer.text


@pytest.mark.parametrize("key", ["", "wrong", TOKEN[:-1], TOKEN + "x", "é"])
def test_a_wrong_key_is_refused_and_gives_no_cookie(root, key):
    client = make_client(root, enter=False)
    answer = client.get("/", params={"key": key})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers
    assert client.get("/train", params=[("key", TOKEN), ("key", key)]).status_code == 403 or not key


def test_the_key_gives_a_cookie_that_scripts_and_other_sites_cannot_use(root):
    client = make_client(root, enter=False)
    cookie = client.get("/", params={"key": TOKEN}).headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    client.cookies.clear()
    client.cookies.set("samgan-studio-8017", TOKEN)
    assert client.get("/").status_code == 403


def test_a_key_for_once_works_once(root):
    client = make_client(root, enter=False)
    key = client.app.key_for_once()
    assert client.get("/", params={"key": key}).status_code == 200
    client.cookies.clear()
    assert client.get("/", params={"key": key}).status_code == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8017", "127.0.0.1", "127.0.0.1:80", f"{HOST}.evil", ""])
def test_a_foreign_host_is_refused_as_dns_rebinding(root, host):
    client = make_client(root)
    assert client.get("/", headers={"host": host}).status_code == 403
    assert client.get("/", headers={"host": host}, params={"key": TOKEN}).status_code == 403
    assert client.get("/", headers=[("host", HOST), ("host", host)]).status_code == 403


def test_a_refused_host_is_told_which_are_expected(root):
    answer = make_client(root).get("/", headers={"host": "127.0.0.1:\x1b9000"})
    assert answer.text == (
        "Refused: expected Host 127.0.0.1:8017 or localhost:8017, found 127.0.0.1:\\x1b9000: open that address; "
        "through a tunnel, forward the same port\n"
    )


def test_at_port_80_browsers_leave_the_port_out(root):
    guard = Guard(make_client(root).app.app, hosts=Address("127.0.0.1", 80).names, token=TOKEN)
    client = TestClient(guard, base_url="http://127.0.0.1", follow_redirects=False)
    assert "samgan-studio-80=" in client.get("/", params={"key": TOKEN}).headers["set-cookie"]
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"host": "127.0.0.1:8017"}).status_code == 403
    assert client.post("/train/stop", data={"run": "run"}, headers={"origin": "http://127.0.0.1"}).status_code == 409


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "null"},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": f"https://{HOST}"},
        {"origin": "http://localhost:8017"},  # the page was at the other name
        ORIGIN | {"sec-fetch-site": "cross-site"},
        ORIGIN | {"sec-fetch-site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "path", ["/train/stop", "/train/resume", "/start", "/start/cost", "/compare/start", "/compare/answer"]
)
def test_what_changes_something_must_come_from_our_own_page(root, headers, path):
    assert make_client(root).post(path, data={"run": "run"}, headers=headers).status_code == 403


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(root, method):
    assert make_client(root).request(method, "/train/stop", headers=ORIGIN).status_code == 403


@pytest.mark.parametrize(
    "path", ["/train/stop", "/train/resume", "/start", "/start/cost", "/compare/start", "/compare/answer"]
)
def test_in_read_only_mode_nothing_can_be_changed(root, path):
    client = make_client(root, read_only=True)
    assert client.post(path, data={"run": "run"}, headers=ORIGIN).status_code == 403
    for page in ("/", "/train?run=run", "/start"):
        text = client.get(page).text
        assert 'method="post"' not in text, page
    assert not (root / ".studio").exists()


def test_a_get_changes_nothing(root):
    client = make_client(root)
    for path in ("/train/stop", "/train/resume", "/start/cost", "/compare/start", "/compare/answer"):
        assert client.get(path, params={"run": "run"}).status_code in (404, 405)


def test_every_answer_forbids_foreign_and_inline_content(root):
    client = make_client(root)
    for path in (*PATHS, "/train?run=run", "/start"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'self';")
        assert "unsafe" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
        if "html" in answer.headers["content-type"]:
            assert answer.headers["cache-control"] == "no-store"
            for inline in ("<style", " style=", " onclick=", " onload=", "javascript:"):
                assert inline not in answer.text, path
            assert answer.text.count("<script") == answer.text.count("<script defer src="), path
            assert "http://" not in answer.text.replace("http://www.w3.org", ""), path


def test_websockets_are_closed(root):
    from starlette.websockets import WebSocketDisconnect

    client = make_client(root)
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/"):
        pass


WAYS_OUT = [
    "..", "../secret/run", "run/../../secret/run", "/etc", "/", "", "run/..", "run/.", "run//grids", "run/",
    "..\\secret", "run\\..\\..", "\0", "run\0", ".studio", "run/.lock", "%2e%2e/secret/run", "a" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("place", WAYS_OUT)
@pytest.mark.parametrize("path", ["/train?run=", "/train/now?run=", "/train/curves?run=", "/time?run=", "/data?set="])
def test_no_words_lead_out_of_the_root(root, path, place):
    client = make_client(root)
    route, _, name = path.partition("?")
    answer = client.get(route, params={name[:-1]: place})
    assert answer.status_code in (200, 400, 404, 409)
    assert "Losses" not in answer.text
    assert "<dt>Speed" not in answer.text
    assert '"kimg":[0' not in answer.text


@pytest.mark.parametrize(
    "name", ["../config.json", "../../config.json", "config.json", "/etc/passwd", "kimg-1.png", ""]
)
def test_only_grids_are_sent_as_pictures(root, name):
    assert make_client(root).get("/train/grid.png", params={"run": "run", "name": name}).status_code == 409


def test_links_that_lead_outside_are_refused(root, tmp_path):
    secret = tmp_path / "secret" / "run"
    os.symlink(secret, root / "linked")
    os.symlink(secret, root / "run" / "inner")
    os.symlink(secret / "grids" / "real.png", root / "run" / "grids" / "kimg-000009.000.png")
    (root / "run" / "stats.jsonl").unlink()
    os.symlink(secret / "stats.jsonl", root / "run" / "stats.jsonl")
    client = make_client(root)
    for place in ("linked", "run/inner"):
        assert client.get("/train", params={"run": place}).status_code == 409
    assert client.get("/train/grid.png", params={"run": "run", "name": "kimg-000009.000.png"}).status_code == 409
    assert client.get("/train/curves", params={"run": "run"}).status_code == 409
    page = client.get("/train", params={"run": "run"})
    assert page.status_code == 200
    assert "stats.jsonl is a link to a place outside" in page.text
    home = client.get("/")
    assert "linked" not in home.text
    assert "1 link to a folder is not followed." in home.text


def test_links_within_the_root_are_followed(root):
    os.symlink(root / "run", root / "again")
    assert make_client(root).get("/train", params={"run": "again"}).status_code == 200


def test_static_files_are_a_list(root):
    client = make_client(root)
    assert client.get("/static/studio.css").status_code == 200
    for name in ("README.md", "../app.py", "..%2fapp.py", "%2e%2e/app.py", "nothing"):
        assert client.get(f"/static/{name}").status_code == 404


def test_a_root_must_be_a_folder(tmp_path):
    with pytest.raises(UsageError, match="is not a folder"):
        Root(tmp_path / "nothing")
    with pytest.raises(Outside):
        Root(tmp_path).find("../x")


def test_an_address_for_others_must_be_meant():
    check_host("127.0.0.1", known=False)
    check_host("::1", known=False)
    check_host("192.0.2.7", known=True)
    for host in ("192.0.2.7", "0.0.0.0", "::", "localhost", "example.org"):
        with pytest.raises(UsageError):
            check_host(host, known=False)
    with pytest.raises(UsageError, match="every address"):
        check_host("0.0.0.0", known=True)
    with pytest.raises(UsageError, match="every address"):
        check_host("::ffff:0.0.0.0", known=True)
    assert Address("127.0.0.1", 5).names == ("127.0.0.1:5", "localhost:5")
    assert Address("::1", 5).names == ("[::1]:5", "localhost:5")
    assert Address("192.0.2.7", 5).names == ("192.0.2.7:5",)
    assert Address("0:0:0:0:0:0:0:1", 80).names == ("[::1]:80", "localhost:80", "[::1]", "localhost")
    assert Address("::ffff:127.0.0.1", 5).names == ("127.0.0.1:5", "localhost:5")


def test_a_form_that_is_too_long_is_refused(root):
    answer = make_client(root).post("/train/stop", data={"run": "x" * 300_000}, headers=ORIGIN)
    assert answer.status_code == 400
