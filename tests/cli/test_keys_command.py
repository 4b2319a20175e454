"""`atomr-trio keys`, and the options of `serve` that let in or keep out."""

import json

import pytest
from click.testing import CliRunner

from atomr_trio.cli import main
from atomr_trio.cli._edge import KEYS_TEXT, key_store
from atomr_trio.gateway import KeyFileError
from atomr_trio.gateway.access import hashed, read_keys


def run(*arguments, **kwargs):
    return CliRunner().invoke(main, arguments, **kwargs)


def test_a_key_is_made_listed_and_revoked(tmp_path):
    path = str(tmp_path / "keys.json")
    limits = ["--deployment", "a/b", "--requests-per-minute", "5", "--budget-usd", "1.5", "--budget-period", "month"]
    made = run("keys", "new", "alice", "--file", path, *limits, "--expires-in", "30")
    assert made.exit_code == 0, made.output
    secret = made.stdout.strip()
    (key,) = read_keys(tmp_path / "keys.json")
    assert key.sha256 == hashed(secret.encode())
    assert (key.name, key.deployments, key.requests_per_minute, key.budget_usd, key.budget_period) == (
        "alice", ("a/b",), 5, 1.5, "month",
    )  # fmt: skip
    assert (key.expires - key.created).days == 30
    assert run("keys", "new", "bob", "--file", path).exit_code == 0
    listed = run("keys", "list", "--file", path).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["alice", "bob"]
    assert "requests_per_minute=5" in listed
    for shown in [listed, run("keys", "list", "--file", path, "--json").stdout]:
        assert secret not in shown
        assert key.sha256 not in shown
    assert json.loads(run("keys", "list", "--file", path, "--json").stdout.splitlines()[1])["name"] == "bob"
    assert run("keys", "revoke", "alice", "--file", path).exit_code == 0
    assert [key.name for key in read_keys(tmp_path / "keys.json")] == ["bob"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["new", "bob"], "`bob` has a key"),
        (["new", "b b"], "name"),
        (["new", "bab", "--requests-per-minute", "0"], "requests-per-minute"),
        (["new", "bab", "--budget-usd", "nan"], "budget"),
        (["revoke", "alice"], "`alice` has no key"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(tmp_path, arguments, says):
    path = tmp_path / "keys.json"
    assert run("keys", "new", "bob", "--file", str(path)).exit_code == 0
    before = path.read_bytes()
    result = run("keys", *arguments, "--file", str(path))
    assert (result.exit_code, says in result.stderr) == (2, True), result.output
    assert path.read_bytes() == before


def test_a_file_that_is_broken_or_not_there(tmp_path):
    path = tmp_path / "keys.json"
    assert run("keys", "list", "--file", str(path)).exit_code == 2
    path.write_text("{")
    for arguments in [
        ["keys", "list", "--file"],
        ["keys", "new", "x", "--file"],
        ["serve", "--runtime", "echo", "--keys"],
    ]:
        result = run(*arguments, str(path))
        assert (result.exit_code, result.stderr.startswith("Error: keys in")) == (2, True), result.output


@pytest.mark.parametrize(
    "option",
    [
        ["--cors-origin", "chat.example.org"], ["--trusted-proxy", "10.0.0.0/99"], ["--max-connections", "0"],
        ["--when-full", "panic"], ["--lame-duck", "-1"],
    ],
)  # fmt: skip
def test_wrong_options_of_serve(option):
    result = run("serve", "--runtime", "echo", *option)
    assert result.exit_code == 2, result.output
    assert option[0] in result.stderr


def test_keys_from_the_environment(tmp_path, monkeypatch):
    assert key_store(None) is None
    run("keys", "new", "bob", "--file", str(tmp_path / "keys.json"))
    monkeypatch.setenv(KEYS_TEXT, (tmp_path / "keys.json").read_text())
    assert len(key_store(None).ring) == 1
    # There but empty must not mean: everybody.
    monkeypatch.setenv(KEYS_TEXT, "")
    with pytest.raises(KeyFileError, match=KEYS_TEXT):
        key_store(None)
