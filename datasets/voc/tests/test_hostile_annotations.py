"""Annotations that would take minutes, memory or other files: one line, at once."""

import time
from xml.etree import ElementTree

import pytest

from semiseg.data import DataError
from semiseg.datasets.voc.annotations import object_names

LAUGHS = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a0 "lol">' + "".join(
    f'<!ENTITY a{n + 1} "{f"&a{n};" * 10}">' for n in range(9)
)
BAD = {
    "nested": "<a>" * 200_000 + "</a>" * 200_000,
    "unclosed": "<a>" * 200_000,
    "laughs": LAUGHS + "]><annotation><object><name>&a9;</name></object></annotation>",
    "external": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><annotation><object><name>&x;</name></object></annotation>',
    "undeclared": "<annotation><object><name>&x;</name></object></annotation>",
    "empty": "",
    "binary": "\0\1\2",
    "encoding": '<?xml version="1.0" encoding="nonsense"?><annotation/>',
}


@pytest.mark.parametrize("name", BAD)
def test_hostile_annotations_are_refused_at_once(name):
    start = time.monotonic()
    with pytest.raises(DataError, match=r"^x\.xml is not an annotation of VOC \(.*\); download it again$"):
        object_names(BAD[name].encode(), "x.xml")
    assert time.monotonic() - start < 3


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_names_are_those_of_the_standard_library(encoding):
    text = (
        f'<?xml version="1.0" encoding="{encoding}"?><annotation><name>no</name><object><name> dog </name>'
        "<part><name>head</name></part></object><object><name>caf\xe9 &amp; bar</name></object><object/>"
        "<object><name/></object><object><name>dog</name></object></annotation>"
    )
    root = ElementTree.fromstring(text.encode(encoding))
    expected = {(name.text or "").strip() for name in root.findall("object/name")} - {""}
    assert object_names(text.encode(encoding), "x.xml") == tuple(sorted(expected)) and "dog" in expected
