"""The singular value decomposition, QR and norms, as the tensor-train mathematics here needs them."""

import math

import torch
from torch import Tensor


def require_floating(tensor: Tensor) -> None:
    """Refuse, by a ValueError, what is no tensor of floating point numbers."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise ValueError(f"matrices and cores are floating point tensors of torch, got {kind}")


def scale_of(tensor: Tensor) -> float:
    """What to divide a tensor of any shape by before numbers in it are squared: nearly always 1.

    If the largest magnitude lies beyond 2**-20 or 2**20 it is the power of two below it; dividing by that rounds nothing.

    Raises
    ------
    ValueError
        If a number is not finite; the message says where.
    """
    if not tensor.numel():
        return 1.0
    largest = max(abs(extreme.item()) for extreme in torch.aminmax(tensor.detach()))
    if not math.isfinite(largest):
        place = (~torch.isfinite(tensor)).nonzero()[0].tolist()
        names = zip(("row", "column"), place, strict=True) if tensor.ndim == 2 else (("index", place),)
        where = ", ".join(f"{name} {index}" for name, index in names)
        raise ValueError(f"what is decomposed must be finite, got {tensor[tuple(place)].item()} in {where}")
    exponent = math.frexp(largest)[1] - 1
    return math.ldexp(1.0, exponent) if largest and abs(exponent) > 20 else 1.0


def frobenius_norm(tensor: Tensor) -> float:
    """Root of the sum of squares, in float64, of numbers that may be too large or too small to be squared."""
    scale = scale_of(tensor)
    return torch.linalg.vector_norm(tensor.double() / scale).item() * scale


def positive_qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """QR with a diagonal of R that is not negative, which makes it unique where the rank is full."""
    q, r = torch.linalg.qr(matrix)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(r)
    return q * signs, signs[:, None] * r


def svd(matrix: Tensor, n_eigenvecs: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """SVD, with the sizes (rows, k), (k,), (k, columns); k is at most `n_eigenvecs`.

    A float32 matrix with one long side goes through the float64 Gram matrix of the other: squares halve the digits of the
    smallest singular values, and eight are left, as many as float32 has. A float64 matrix with a long side goes through
    the R of its QR, which loses none. The first entry of largest magnitude in each of the short side's vectors is positive.
    """
    rows, columns = matrix.shape
    if rows > columns:
        v, s, uh = svd(matrix.T, n_eigenvecs)
        return uh.T, s, v.T
    if columns < 2 * rows:
        u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    elif matrix.dtype == torch.float64:
        q, r = torch.linalg.qr(matrix.T)
        u, s, vh = torch.linalg.svd(r.T)
        vh = vh[:n_eigenvecs] @ q.T
    else:
        u = _left_vectors(matrix, n_eigenvecs)
        vh = u.T @ matrix
        s = torch.linalg.vector_norm(vh, dim=1)
        return u, s, vh.div_(s.clamp(min=torch.finfo(s.dtype).tiny)[:, None])
    signs = _signs(u)
    parts = (u * signs)[:, :n_eigenvecs], s[:n_eigenvecs], vh[:n_eigenvecs] * signs[:n_eigenvecs, None]
    u, s, vh = (part.to(matrix.dtype) for part in parts)
    return u, s, vh


def split(matrix: Tensor, n_eigenvecs: int | None = None, **_ignored) -> tuple[Tensor, Tensor, Tensor]:
    """What TensorLy's `svd=` is used for: U, S and V whose U has orthonormal columns and whose S V is the rest.

    TensorLy multiplies S into V at once, so for a float32 matrix that is wide S is left at 1. (TensorLy also hands over a
    `random_state`, of no use here.)
    """
    if matrix.dtype == torch.float64 or matrix.shape[1] < 2 * matrix.shape[0]:
        return svd(matrix, n_eigenvecs)
    u = _left_vectors(matrix, n_eigenvecs)
    return u, torch.ones_like(u[0]), u.T @ matrix


def _left_vectors(matrix: Tensor, n: int | None) -> Tensor:
    """The first n left singular vectors of a wide matrix."""
    u = torch.linalg.eigh(_upper_gram(matrix), UPLO="U").eigenvectors.flip(1)[:, :n]
    return (u * _signs(u)).to(matrix.dtype)


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values in float64, descending. Those of a matrix with a long side are the ones of the R of its QR."""
    matrix = matrix.double()
    rows, columns = matrix.shape
    if max(rows, columns) >= 2 * min(rows, columns):
        matrix = torch.linalg.qr(matrix if rows > columns else matrix.T, mode="r").R
    return torch.linalg.svdvals(matrix)


def _upper_gram(matrix: Tensor, n_blocks: int = 4, chunk: int = 2**21) -> Tensor:
    """Upper triangle, in blocks of rows, of matrix @ matrix.T in float64. What lies far below the diagonal stays 0.

    The long side is taken in chunks, so that no second copy of a large matrix is needed for the digits.
    """
    rows = len(matrix)
    gram = torch.zeros(rows, rows, dtype=torch.float64, device=matrix.device)
    for columns in matrix.split(max(1, chunk // rows), dim=1):
        columns, start = columns.double(), 0
        for block in columns.chunk(n_blocks):
            gram[start : start + len(block), start:].addmm_(block, columns[start:].T)
            start += len(block)
    return gram


def _signs(vectors: Tensor) -> Tensor:
    """+-1 for each column, so that times it the first of the entries of largest magnitude is positive.

    What differs from the largest by less than a hundred-thousandth is as large: rounding does not choose between them.
    """
    sizes = vectors.abs()
    first = (sizes >= (1 - 1e-5) * sizes.amax(0)).int().argmax(0, keepdim=True)
    return torch.where(vectors.gather(0, first)[0] < 0, -1.0, 1.0).to(vectors)


def relative_error(approximation: Tensor, matrix: Tensor) -> float:
    """Frobenius norm of the difference over that of `matrix`; 0 if both are zero.

    >>> relative_error(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    0.8

    Raises
    ------
    ValueError
        If the shapes differ, or a number is not finite.
    """
    if approximation.shape != matrix.shape:
        raise ValueError(f"both need one shape, got {tuple(approximation.shape)} and {tuple(matrix.shape)}")
    difference, norm = frobenius_norm(approximation.double() - matrix.double()), frobenius_norm(matrix)
    return difference / norm if norm else (math.inf if difference else 0.0)
