"""Documents as text, and in chunks: what is read, and what is refused by the name of its limit."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kfm_server.memory import readers
from kfm_server.memory.chunking import CHUNK_CHARACTERS, chunked
from kfm_server.memory.readers import ReadDocument, media_type_of, read_document
from kfm_server.ports.memory import MemoryInvalid
from pypdf import PdfWriter
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

pytestmark = pytest.mark.requirement("M1", "M2")


def a_pdf(*pages: str, title: str = "", password: str = "") -> bytes:
    """A PDF with a line on each page."""
    writer = PdfWriter()
    for text in pages:
        page = writer.add_blank_page(300, 300)
        font = DictionaryObject(
            {
                NameObject("/Type"): NameObject("/Font"),
                NameObject("/Subtype"): NameObject("/Type1"),
                NameObject("/BaseFont"): NameObject("/Helvetica"),
            }
        )
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 10 100 Td ({text}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    if title:
        writer.add_metadata({"/Title": title})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    written = io.BytesIO()
    writer.write(written)
    return written.getvalue()


async def test_html_becomes_markdown_without_its_scripts() -> None:
    page = b"""<html><head><title>The page</title><script>alert(1)</script></head><body>
    <h1>Top</h1><p>One <b>two</b>\n three</p><ul><li>first<li>second</ul><pre>a\n  b</pre>tail
    <table><tr><td>x</td><td>y</td></tr></table><style>p{}</style><!-- hidden --><script>evil()</script></body></html>"""
    read = await read_document("page.html", "text/html", page)
    assert read.title == "The page"
    assert read.markdown
    assert "# Top\n\nOne two three\n" in read.text
    assert "- first\n" in read.text
    assert "```\na\n  b\n```\n" in read.text
    assert "tail" in read.text.split("```")[2]
    assert not {"alert", "evil", "hidden", "p{}"} & set(read.text.replace("(", " ").split())


async def test_a_page_nested_deeper_than_calls_can_be_is_read() -> None:
    page = b"<div>" * 5_000 + b"deep" + b"</div>" * 5_000
    assert len(page) < readers.SMALL_PAGE
    assert "deep" in (await read_document("page.html", "text/html", page)).text


async def test_a_large_page_is_read_as_a_small_one_is() -> None:
    page = "<title>Räks</title><h1>Top</h1><ul><li>smörgås</ul>".encode()
    small = await read_document("page.html", "text/html", page)
    large = await read_document("page.html", "text/html", page + b"\n" * readers.SMALL_PAGE)
    assert large == small
    assert "- smörgås" in large.text


async def test_a_page_that_takes_too_long_names_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readers, "CPU_SECONDS", 1)
    with pytest.raises(MemoryInvalid, match=r"page.html: this cannot be read within cpu_seconds=1 "):
        await read_document("page.html", "text/html", b"<div>" * 200_000)


async def test_the_charset_that_a_page_names_is_used() -> None:
    page = '<meta charset="iso-8859-1"><p>Räksmörgås'.encode("iso-8859-1")
    assert "Räksmörgås" in (await read_document("page.html", "text/html", page)).text


async def test_pdf_pages_are_read_in_order() -> None:
    read = await read_document("a.pdf", "application/pdf", a_pdf("Hello bread", "Hello soup", title="Menu"))
    assert read.title == "Menu"
    assert read.text.index("Hello bread") < read.text.index("Hello soup")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"%PDF-1.7 nothing more", "no PDF"),
        (b"", "no PDF"),
        (a_pdf("secret", password="key"), "encrypted"),
        (a_pdf("x")[:-200], ""),
    ],
)
async def test_a_broken_or_locked_pdf_is_refused_or_read_never_more(body: bytes, why: str) -> None:
    try:
        await read_document("a.pdf", "application/pdf", body)
    except MemoryInvalid as error:
        assert why in str(error)
    else:
        assert not why


async def test_a_pdf_of_too_many_pages_names_the_limit() -> None:
    writer = PdfWriter()
    for _ in range(2001):
        writer.add_blank_page(10, 10)
    written = io.BytesIO()
    writer.write(written)
    with pytest.raises(MemoryInvalid, match=r"2001 pages are over max_pages=2000"):
        await read_document("a.pdf", "application/pdf", written.getvalue())


async def test_limits_of_bytes_and_text_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MemoryInvalid, match=r"max_bytes=20971520"):
        await read_document("a.txt", "text/plain", b"x" * (readers.MAX_BYTES + 1))
    with pytest.raises(MemoryInvalid, match=r"max_text=8388608"):
        await read_document("a.txt", "text/plain", b"x" * (readers.MAX_TEXT + 1))


@pytest.mark.parametrize("source", ["a.exe", "noending", "dir.md/file", ".md/x", ""])
def test_an_unknown_kind_of_file_is_refused_with_those_that_are_known(source: str) -> None:
    with pytest.raises(MemoryInvalid, match="pdf"):
        media_type_of(source)


async def test_an_unknown_media_type_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(MemoryInvalid, match="application/pdf"):
        await read_document("a", "image/png", b"")


@pytest.mark.parametrize(
    ("source", "body", "title"),
    [
        ("a.md", b"intro\n\n# The title #\n", "The title"),
        ("a.rst", b"=====\nTitle\n=====\n\ntext", "Title"),
        ("a.txt", b"\n\n  First line\nsecond", "First line"),
        ("dir/a.txt", b"", "a.txt"),
        ("a.txt", "\ufeffBOM".encode(), "BOM"),
        ("a.txt", "wide".encode("utf-16"), "wide"),
    ],
)
async def test_a_title_is_found(source: str, body: bytes, title: str) -> None:
    assert (await read_document(source, media_type_of(source), body)).title == title


def test_chunks_know_the_headings_above_them_and_code_is_none() -> None:
    text = "\n\n".join(
        ["# A", "a " * 300, "## B", "b " * 300, "```\n# no heading\n```", "c " * 300, "# D", "d " * 300]
    )
    chunks = chunked("a.md", ReadDocument("", text, True))
    headings = {chunk.heading for chunk in chunks}
    assert {"A", "A > B", "D"} <= headings
    assert not any("no heading" in heading for heading in headings)


def test_too_many_chunks_name_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kfm_server.memory.chunking.MAX_CHUNKS", 3)
    with pytest.raises(MemoryInvalid, match="max_chunks=3"):
        chunked("a.txt", ReadDocument("", "words and words. " * 1000, False))


@given(st.text(), st.booleans())
def test_chunks_are_bounded_and_hold_every_word(text: str, markdown: bool) -> None:
    chunks = chunked("a", ReadDocument("", text * 20, markdown))
    assert all(len(chunk.text) <= CHUNK_CHARACTERS[1] for chunk in chunks)
    joined = "".join(chunk.text for chunk in chunks)
    assert {c for c in text if c.isalnum()} <= set(joined)
