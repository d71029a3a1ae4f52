"""Frames between the server and the inside: four bytes of length, then so many bytes. And what a call tells, on its way out."""

import mmap
import os

_READ = 65536


class Gathered:
    """What comes out of one pipe: at most `most` bytes, or a little more, which says that it was too much.

    Its memory is in no child, and no copy of it is made: the next call would find it in its own memory.
    """

    def __init__(self, most: int) -> None:
        """Takes no memory before something comes."""
        self._memory = mmap.mmap(-1, most + _READ)
        self._memory.madvise(mmap.MADV_DONTFORK)
        self.size = 0

    def read(self, file: int) -> bool:
        """Take what is there, of which there is some; answers False at the end. Once too much has come it has no place."""
        with memoryview(self._memory) as whole, whole[self.size : self.size + _READ] as place:
            count = os.readv(file, [place])
        self.size += count
        return count > 0

    def send(self, first: int = 0, most: int | None = None) -> None:
        """A frame of its bytes from `first` on, of the first `most` if given."""
        last = self.size if most is None else min(self.size, most)
        with memoryview(self._memory) as whole, whole[first : max(first, last)] as part:
            _write((last - first if last > first else 0).to_bytes(4, "big"))
            _write(part)

    def close(self) -> None:
        """It is gone."""
        self._memory.close()


def send(frame: bytes) -> None:
    """To the server."""
    _write(len(frame).to_bytes(4, "big") + frame)


def receive() -> bytes:
    """The next frame of the server; ends this process if there is none."""
    return _exactly(int.from_bytes(_exactly(4), "big"))


def _write(content: bytes | memoryview) -> None:
    with memoryview(content) as unsent:
        done = 0
        while done < len(unsent):
            done += os.write(1, unsent[done:])


def _exactly(count: int) -> bytes:
    got = bytearray()
    while len(got) < count:
        chunk = os.read(0, count - len(got))
        if not chunk:
            os._exit(0)
        got += chunk
    return bytes(got)
