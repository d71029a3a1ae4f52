"""Escapes by way of its own memory: a call is a copy of a process that served others, and finds nothing of theirs in it."""

import pytest

from tests.security.conftest import CANARY, Prison

pytestmark = [pytest.mark.confined, pytest.mark.requirement("K3", "ST13"), pytest.mark.timeout(300)]

# Pages that are not there make write() fail, and nothing else.
SCAN = """
import gc
out, into = os.pipe()
def page(at):
    return os.read(out, 4096) if libc.write(out_of, ctypes.c_void_p(at), 4096) == 4096 else b""
out_of = into
needle = bytes(byte ^ 1 for byte in hidden)
starts = {id(thing) >> 21 << 21 for thing in (*gc.get_objects(), needle, 10**9, bytes(600))}
pages = sorted({at for start in starts for at in range(start - (2 << 20), start + (4 << 20), 4096)})
sum(page(at).count(needle) for at in pages)
"""


@pytest.mark.parametrize("size", [1, 300, 5_000, 20_000])
async def test_nothing_of_another_call_is_found_in_memory(prison: Prison, size: int) -> None:
    secrets = {
        name: f"{name}-of-another-4b1d" for name in ("source", "argument", "printed", "value", "error")
    }
    source = f"# {secrets['source']}\nprint(kept['printed'] * size, flush=True)\nkept['value'] * size"
    kept = {"argument": secrets["argument"] * size, "printed": secrets["printed"], "value": secrets["value"]}
    known = {"kept": kept, "size": size}
    assert "value" in await prison.attempt(source, known, output_bytes=8 << 20)
    assert "failed" in await prison.attempt(f"raise ValueError({secrets['error']!r} * size)", {"size": size})
    own = await prison.value(SCAN, {"hidden": [byte ^ 1 for byte in CANARY.encode()]})
    assert own >= 1, "what it has itself it finds: it does look at its memory"
    for name, secret in secrets.items():
        hidden = [byte ^ 1 for byte in secret.encode()]
        assert await prison.value(SCAN, {"hidden": hidden}) == own, name
