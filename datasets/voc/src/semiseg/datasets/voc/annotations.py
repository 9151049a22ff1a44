"""Image-level tags from VOC's annotations, read in one pass that no file can make slow."""

from typing import Any
from xml.parsers import expat

from semiseg.data import DataError

DEEPEST = 16  # levels of elements; VOC's own files have 4
_NAME = ["annotation", "object", "name"]


def object_names(data: bytes, where: str) -> tuple[str, ...]:
    """The unique names of the objects in an annotation, sorted; `where` names the file in errors (DataError).

    Entities are refused: they can make a small file large, or name other files.
    """
    open_elements: list[str] = []
    found: set[str] = set()
    text: list[str] = []

    def start(name: str, _: Any) -> None:
        open_elements.append(name)
        if len(open_elements) > DEEPEST:
            raise ValueError(f"more than {DEEPEST} levels of elements")
        text.clear()

    def end(_: str) -> None:
        if open_elements[1:] == _NAME[1:] and (name := "".join(text).strip()):
            found.add(name)
        open_elements.pop()

    def entity(*_: Any) -> None:
        raise ValueError("it declares entities")

    def character(part: str) -> None:
        if len(open_elements) == len(_NAME):
            text.append(part)

    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, character
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise DataError(f"{where} is not an annotation of VOC ({error}); download it again") from error
    return tuple(sorted(found))
