"""The file of API keys: what it may say, and that no message repeats a key."""

import hashlib

import pytest
from polarvec_server.edge.auth import Authenticator, check_model, read_keys
from polarvec_server.errors import ConfigError, PermissionDenied, Unauthenticated

KEY = "0123456789abcdef"


def written(tmp_path, content):
    file = tmp_path / "keys"
    file.write_text(content)
    return file


def test_without_a_file_everybody_may_use_everything():
    key = Authenticator("").check(None)
    check_model(key, "any")


@pytest.mark.parametrize("authorization", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "])
def test_a_key_has_a_name_and_models(tmp_path, authorization):
    key = Authenticator(str(written(tmp_path, f"me {KEY} a,b/c\n"))).check(authorization)
    assert key.name == "me"
    check_model(key, "b/c")
    with pytest.raises(PermissionDenied):
        check_model(key, "b")


@pytest.mark.parametrize("authorization", [None, "", "Bearer", KEY, f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \udcff"])
def test_anything_else_is_nobody(tmp_path, authorization):
    with pytest.raises(Unauthenticated):
        Authenticator(str(written(tmp_path, f"me {KEY}\n"))).check(authorization)


BROKEN = {
    "no key": ("me\n", "line 1"),
    "four words": (f"me {KEY} a b\n", "line 1"),
    "short": ("# first\nme secret\n", "line 2"),
    "odd name": (f"m/e {KEY}\n", "name"),
    "short digest": (f"me sha256:{KEY}\n", "digest"),
    "empty model": (f"me {KEY} a,,b\n", "empty model"),
    "twice": (f"me {KEY}\nyou {KEY}\n", "repeats the key of me"),
    "twice, once as a digest": (f"me {KEY}\nyou sha256:{hashlib.sha256(KEY.encode()).hexdigest()}\n", "repeats"),
    "nothing": ("# only a comment\n", "holds no key"),
}


@pytest.mark.parametrize(("content", "words"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_without_repeating_it(tmp_path, content, words):
    with pytest.raises(ConfigError, match="POLARVEC_API_KEYS_FILE") as caught:
        read_keys(written(tmp_path, content))
    assert words in str(caught.value)
    assert KEY not in str(caught.value) and "secret" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ConfigError, match="nowhere"):
        Authenticator(str(tmp_path / "nowhere"))
