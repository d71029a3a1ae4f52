"""Vectors as rows of a matrix, all of length 1: their products are cosines."""

from collections.abc import Sequence
from typing import Any

from kfm_server.ports.vectors import MAX_DIMS, MAX_FOUND, EmbedderIdentity, Vector, VectorsInvalid


def unit_rows(embedder: EmbedderIdentity, vectors: Sequence[Vector]) -> Any:
    """A matrix of float32. Raises VectorsInvalid for what is no vector of this embedder, or has no direction."""
    if not 1 <= embedder.dims <= MAX_DIMS:
        raise VectorsInvalid(f"{embedder.id}: {embedder.dims} dimensions are not 1 to max_dims={MAX_DIMS}")
    import numpy as np  # takes a tenth of a second, which no start shall

    for vector in vectors:
        if len(vector) != embedder.dims:
            raise VectorsInvalid(f"{len(vector)} dimensions where {embedder.id} has {embedder.dims}")
    rows = np.asarray(vectors, dtype=np.float64).reshape(len(vectors), embedder.dims)
    with np.errstate(over="ignore"):
        lengths = np.linalg.norm(rows, axis=1)
    if not np.isfinite(lengths).all():
        raise VectorsInvalid(f"a vector of {embedder.id} has a number that is not finite, or is too large")
    if (lengths == 0).any():
        raise VectorsInvalid(f"a vector of {embedder.id} is all zeros: it has no direction")
    return (rows / lengths[:, None]).astype(np.float32)


def check_k(k: int) -> None:
    """VectorsInvalid if so many cannot be asked for."""
    if not 1 <= k <= MAX_FOUND:
        raise VectorsInvalid(f"k={k} is not 1 to max_found={MAX_FOUND}")
