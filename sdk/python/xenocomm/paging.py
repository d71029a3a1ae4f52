"""Lists that come page by page."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Page(NamedTuple, Generic[T]):
    """Some rows, and the token of the page after them; empty after the last."""

    items: list[T]
    next_page_token: str


class Listing(Generic[T]):
    """`async for row in ...` goes on page by page to the end; `await ... .page()` is one page. Asks nothing before."""

    def __init__(self, fetch: Callable[[str, int], Awaitable[Page[T]]], page_size: int = 0) -> None:
        """Made by the SDK: `fetch` gets the page of a token and a size; 0 is the server's own size."""
        self._fetch = fetch
        self._page_size = page_size

    async def page(self, page_token: str = "", page_size: int = 0) -> Page[T]:
        """One page: the first, or the one that a token names. PageTokenInvalid."""
        return await self._fetch(page_token, page_size or self._page_size)

    async def pages(self) -> AsyncIterator[Page[T]]:
        """All pages, the first first."""
        token = ""
        while True:
            page = await self.page(token)
            yield page
            token = page.next_page_token
            if not token:
                return

    async def __aiter__(self) -> AsyncIterator[T]:
        async for page in self.pages():
            for item in page.items:
                yield item

    async def first(self, most: int) -> list[T]:
        """At most so many rows, from the start."""
        found: list[T] = []
        token = ""
        while len(found) < most:
            page = await self.page(token, min(200, most - len(found)))
            found += page.items
            token = page.next_page_token
            if not token:
                break
        return found[:most]
