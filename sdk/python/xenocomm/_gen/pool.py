"""The contract's messages in a descriptor pool of the SDK's own. Generated; never edited.

The default pool is left alone: a server in the same process has its own copies there.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

POOL = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(
    Path(__file__).with_name("image.binpb").read_bytes()
).file:
    POOL.AddSerializedFile(_file.SerializeToString())


@lru_cache(maxsize=None)
def pb(full_name: str) -> type[Any]:
    """The upb class of a message, e.g. `kfm.turn.v1.SubmitTurnRequest`; KeyError if there is none."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(full_name))
