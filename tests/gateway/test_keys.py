"""Keys at rest: what is written, what is refused, and what is remembered of their spending."""

import stat
from datetime import UTC, datetime

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.gateway import ApiKey, KeyFileError, KeyRing, KeyStore
from atomr_trio.gateway.access import (
    Cost,
    InvalidApiKey,
    Moment,
    Spent,
    decode_keys,
    encode_keys,
    hashed,
    new_secret,
    read_keys,
    read_spent,
    spent_path,
    write_keys,
    write_spent,
)

from .harness import capturing_log, until

NOW = 1_700_000_000.0


def key(secret="one", name=None, **fields):
    return ApiKey(name=name or secret, sha256=hashed(secret.encode()), **fields)


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", fullmatch=True)
some = st.one_of(st.none(), st.integers(1, 2**53))
dates = st.one_of(st.none(), st.datetimes(timezones=st.just(UTC)))
any_key = st.builds(
    ApiKey,
    name=names,
    sha256=st.binary(max_size=8).map(hashed),
    deployments=st.one_of(st.none(), st.lists(st.text()).map(tuple)),
    requests_per_minute=some,
    tokens_per_minute=some,
    max_concurrent=some,
    budget_tokens=some,
    budget_usd=st.one_of(st.none(), st.floats(1e-9, 1e6)),
    budget_period=st.sampled_from(["total", "month", "day"]),
    expires=dates,
    created=dates,
    share_prefixes=st.booleans(),
)


@given(st.lists(any_key, unique_by=(lambda key: key.name, lambda key: key.sha256), max_size=5))
def test_what_is_written_is_read(keys):
    assert decode_keys(encode_keys(keys), "here") == tuple(keys)


@given(st.binary(max_size=200))
def test_what_is_no_file_is_refused(text):
    with pytest.raises(KeyFileError, match=r"^keys in here: "):
        decode_keys(text, "here")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"requests_per_minut": 5}, "requests_per_minut"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"requests_per_minute": "many"}, "requests_per_minute"),
        ({"budget_usd": 0}, "budget_usd"),
        ({"budget_period": "week"}, "budget_period"),
        ({"sha256": "secret"}, "sha256"),
        ({"name": "a b"}, "name"),
        ({"name": "a\n"}, "name"),
        ({"expires": "tomorrow"}, "expires"),
        ({"expires": "2030-01-01T00:00:00"}, "expires"),
    ],
)
def test_a_mistake_is_named(change, says):
    text = msgspec.json.encode({"version": 1, "keys": [{**msgspec.to_builtins(key()), **change}]})
    with pytest.raises(KeyFileError, match=says):
        decode_keys(text, "here")


def test_twins_and_other_versions_are_refused():
    with pytest.raises(KeyFileError, match="`one` is there 2 times"):
        decode_keys(encode_keys([key("one"), key("two", "one")]), "here")
    with pytest.raises(KeyFileError, match="2 times"):
        decode_keys(encode_keys([key("one"), key("one", "two")]), "here")
    with pytest.raises(KeyFileError, match="version 2"):
        decode_keys(b'{"version": 2, "keys": []}', "here")


def test_only_its_owner_reads_a_file_and_no_secret_is_in_it(tmp_path):
    path, secret = tmp_path / "keys.json", new_secret()
    write_keys(path, [key(secret, "me")])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert secret.encode() not in path.read_bytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["keys.json"]
    assert new_secret() != secret


def test_a_link_to_a_file_stays_a_link(tmp_path):
    path, link = tmp_path / "keys.json", tmp_path / "link"
    write_keys(path, [])
    link.symlink_to(path)
    write_keys(link, [key()])
    assert link.is_symlink()
    assert read_keys(path) == (key(),)


@pytest.mark.parametrize("where", ["nowhere/keys.json", ""])
def test_files_that_cannot_be(tmp_path, where):
    with pytest.raises(KeyFileError):
        read_keys(tmp_path / where)
    with pytest.raises(KeyFileError):
        write_keys(tmp_path / where, [])
    assert list(tmp_path.iterdir()) == []


# The ring.


@given(st.lists(st.text(max_size=5), unique=True), st.text(max_size=5))
def test_only_the_secrets_of_its_keys_open(secrets, other):
    ring = KeyRing([key(secret, f"k{number}") for number, secret in enumerate(secrets)])
    for number, secret in enumerate(secrets):
        assert ring.authenticate(secret.encode(), NOW).key.name == f"k{number}"
    if other not in secrets:
        with pytest.raises(InvalidApiKey):
            ring.authenticate(other.encode(), NOW)


def test_a_key_expires():
    ring = KeyRing([key(expires=datetime.fromtimestamp(NOW, UTC))])
    assert ring.authenticate(b"one", NOW - 0.01)
    with pytest.raises(InvalidApiKey):
        ring.authenticate(b"one", NOW)


def test_keys_that_stay_keep_what_they_have_used():
    ring = KeyRing([key(budget_tokens=5), key("two", budget_tokens=5)])
    account = ring.authenticate(b"one", NOW)
    account.settle(account.reserve(Cost(4), Moment(0, NOW)), Cost(4), Moment(0, NOW))
    ring.replace([key(name="renamed", budget_tokens=9)])
    assert ring.authenticate(b"one", NOW) is account
    assert (account.key.name, account.token_budget.left(NOW)) == ("renamed", 5)
    with pytest.raises(InvalidApiKey):
        ring.authenticate(b"two", NOW)
    ring.replace([key("two")])
    assert len(ring) == 1


# What they have spent.


def spend(store, tokens, now=NOW):
    account = store.ring.authenticate(b"one", now)
    moment = Moment(0, now)
    account.settle(account.reserve(Cost(tokens, tokens), moment), Cost(tokens, tokens), moment)


async def test_spending_outlives_the_process(tmp_path, patient_clock):
    path = tmp_path / "keys.json"
    write_keys(path, [key(budget_tokens=100, budget_usd=1.0, budget_period="day"), key("two")])
    log, entries = capturing_log()
    store = KeyStore.from_file(path, log, clock=lambda: NOW)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.keep_spent)
        await trio.sleep(20)
        assert not spent_path(path).exists()
        spend(store, 30)
        await trio.sleep(5)
        await until(lambda: spent_path(path).exists())
        assert read_spent(path)[key().id].tokens == 30
        spend(store, 5)
        nursery.cancel_scope.cancel(reason="the test goes on")
    await store.save_spent()
    again = KeyStore.from_file(path, log, clock=lambda: NOW)
    assert again.ring.authenticate(b"one", NOW).token_budget.left(NOW) == 65
    assert again.ring.spent(NOW) == {key().id: Spent(1_699_920_000, 35, 35)}
    assert again.ring.spent(NOW + 86_400)[key().id].tokens == 0
    assert entries == []


async def test_a_broken_file_leaves_the_keys_as_they_were(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, [key()])
    store = KeyStore.from_file(path, capturing_log()[0], clock=lambda: NOW)
    for text in [b"", b"{", encode_keys([key("two"), key("two")])]:
        path.write_bytes(text)
        with pytest.raises(KeyFileError):
            await store.reload()
        assert store.ring.authenticate(b"one", NOW)
    path.unlink()
    with pytest.raises(KeyFileError):
        await store.reload()
    write_keys(path, [key("two")])
    assert await store.reload() == 1
    assert store.ring.authenticate(b"two", NOW)


async def test_spending_that_cannot_be_written_is_said_and_tried_again(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, [key(budget_tokens=100)])
    log, entries = capturing_log()
    store = KeyStore.from_file(path, log, clock=lambda: NOW)
    spend(store, 30)
    spent_path(path).mkdir()
    await store.save_spent()
    assert [entry["log_level"] for entry in entries] == ["error"]
    spent_path(path).rmdir()
    await store.save_spent()
    assert read_spent(path)[key().id].tokens == 30


def test_damaged_spending_is_not_taken_for_none(tmp_path):
    path = tmp_path / "keys.json"
    write_keys(path, [key(budget_tokens=100)])
    write_spent(path, {key().id: Spent(0, 1, 1)})
    text = spent_path(path).read_bytes()
    spent_path(path).write_bytes(text[:-5])
    with pytest.raises(KeyFileError, match="remove it"):
        KeyStore.from_file(path, capturing_log()[0], clock=lambda: NOW)


async def test_keys_from_a_text_keep_nothing():
    store = KeyStore.from_text(encode_keys([key(budget_tokens=9)]).decode(), "THERE", capturing_log()[0])
    spend(store, 1)
    await store.save_spent()
    assert await store.reload() == 1
    with pytest.raises(KeyFileError, match="THERE"):
        KeyStore.from_text("", "THERE", capturing_log()[0])
