"""Lines of keys, against texts numbered by hand and against the keys that tomllib reads."""

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from semiseg.train.recipe.lines import lines

TEXT = '''\
# a comment, with [brackets] = "and more"
a = 1   # 2
"b.c" = 'x # no comment'
d.e = """
f = 7
"quoted" \\""" still # inside
"""

[t]     # 9
u = { v = [1, 2], w = { x = "]}" } }
list = [
  1,        # 12
  # a comment ] within
  { y = 2 },

  [ 3,
    4 ],
]
[t.s]
'lit"eral' = """"two quotes"""""
[[t.rows]]  # 21
k = 1
[[t.rows]]  # 23
k = 2979-05-27T07:32:00Z
[t.rows.sub]
z = """x"""
[["odd name".rows]]
z = \'\'\'
multi # line
\'\'\'
last = true
'''

EXPECTED = {
    ("a",): 2,
    ("b.c",): 3,
    ("d", "e"): 4,
    ("t",): 9,
    ("t", "u"): 10,
    ("t", "u", "v", 1): 10,
    ("t", "u", "w", "x"): 10,
    ("t", "list"): 11,
    ("t", "list", 0): 12,
    ("t", "list", 1): 14,
    ("t", "list", 1, "y"): 14,
    ("t", "list", 2): 16,
    ("t", "list", 2, 1): 17,
    ("t", "s"): 19,
    ("t", "s", 'lit"eral'): 20,
    ("t", "rows", 0): 21,
    ("t", "rows", 0, "k"): 22,
    ("t", "rows", 1): 23,
    ("t", "rows", 1, "sub"): 25,
    ("t", "rows", 1, "sub", "z"): 26,
    ("odd name", "rows", 0, "z"): 28,
    ("odd name", "rows", 0, "last"): 31,
}


def test_every_kind_of_toml_is_placed() -> None:
    found = lines(TEXT)
    assert {path: found.get(path) for path in EXPECTED} == EXPECTED
    assert set(found) == paths(tomllib.loads(TEXT))
    assert lines(TEXT.replace("\n", "\r\n")) == found


def test_an_empty_document_has_no_lines() -> None:
    assert lines("") == lines("# nothing\n\n") == {}


scalars = st.one_of(st.integers(), st.booleans(), st.sampled_from(['"a ] b"', "'#'", '"""\n]"""', "1e5", "1979-05-27"]))
values = st.recursive(
    scalars.map(lambda value: value if isinstance(value, str) else str(value).lower()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: "[\n" + "".join(f"  {item}, # ]\n" for item in items) + "]"),
        st.dictionaries(st.sampled_from(["k", '"a.b"', "'c d'"]), inner, max_size=2).map(
            lambda items: "{ " + ", ".join(f"{key} = {value}" for key, value in items.items()) + " }"
        ),
    ),
    max_leaves=6,
)


@given(st.lists(values, max_size=4), st.lists(values, max_size=3))
def test_the_scanner_finds_what_tomllib_finds(plain: list[str], rows: list[str]) -> None:
    text = "".join(f"k{number} = {value}\n\n" for number, value in enumerate(plain))
    text += "".join(f"[[t.rows]]\nk.inner = {value}\n" for value in rows)
    found = lines(text)
    assert set(found) == paths(tomllib.loads(text))
    for number in range(len(plain)):
        assert text.splitlines()[found[(f"k{number}",)] - 1].startswith(f"k{number} = ")


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Every key and list item of what tomllib read."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    below = (paths(inner, (*path, name)) for name, inner in items)
    return ({path} if path else set()).union(*below)
