"""The singular value decomposition, QR and norms, as the tensor-train mathematics here needs them."""

import math

import torch
from torch import Tensor


def require_floating(tensor: Tensor) -> None:
    """Refuse, by a ValueError, what is no tensor of floating point numbers."""
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        kind = getattr(tensor, "dtype", type(tensor).__name__)
        raise ValueError(f"matrices and cores are floating point tensors of torch, got {kind}")


def require_finite(matrix: Tensor) -> None:
    """Refuse a tensor of two axes with a NaN or an infinity in it, by a ValueError that says where."""
    if matrix.numel() and not all(math.isfinite(extreme) for extreme in torch.aminmax(matrix.detach())):
        row, column = (~torch.isfinite(matrix)).nonzero()[0].tolist()
        raise ValueError(
            f"a matrix to decompose must be finite, got {matrix[row, column]} in row {row}, column {column}"
        )


def positive_qr(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """QR with a diagonal of R that is not negative, which makes it unique where the rank is full."""
    q, r = torch.linalg.qr(matrix)
    signs = torch.where(r.diagonal() < 0, -1.0, 1.0).to(r)
    return q * signs, signs[:, None] * r


def svd(matrix: Tensor, n_eigenvecs: int | None = None, **_ignored) -> tuple[Tensor, Tensor, Tensor]:
    """SVD in the form that TensorLy's `svd=` asks for (it also hands over a `random_state`, of no use here).

    A matrix with one long side goes through the small Gram matrix of the other. The squares in it halve the digits of
    the smallest singular values; in float64 that leaves eight, more than float32 cores can hold. The vectors of the
    short side come from a symmetric eigenproblem, so they are orthonormal to the last digit. The entry of largest
    magnitude in each of the short side's vectors is made positive.
    """
    rows, columns = matrix.shape
    if rows > columns:
        v, s, uh = svd(matrix.T, n_eigenvecs)
        return uh.T, s, v.T
    if columns >= 2 * rows:
        u = torch.linalg.eigh(_upper_gram(matrix), UPLO="U").eigenvectors.flip(1)[:, :n_eigenvecs]
        u = (u * _signs(u)).to(matrix.dtype)
        vh = u.T @ matrix
        s = torch.linalg.vector_norm(vh, dim=1)
        return u, s, vh.div_(s.clamp(min=torch.finfo(s.dtype).tiny)[:, None])
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    signs = _signs(u)
    parts = u * signs, s, vh * signs[:, None]
    u, s, vh = (part.to(matrix.dtype) for part in parts)
    return u[:, :n_eigenvecs], s[:n_eigenvecs], vh[:n_eigenvecs]


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values in float64, descending.

    Those of a matrix with one long side come from the Gram matrix of the other, as in `svd`. There a square below the
    rounding of the largest one means nothing, and 0 stands for it.
    """
    rows, columns = matrix.shape
    if max(rows, columns) < 2 * min(rows, columns):
        return torch.linalg.svdvals(matrix.double())
    squares = torch.linalg.eigvalsh(_upper_gram(matrix if rows < columns else matrix.T), UPLO="U").flip(0)
    rounding = len(squares) * torch.finfo(squares.dtype).eps * squares[0]
    return torch.where(squares > rounding, squares, 0.0).sqrt()


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
    """+-1 for each column, so that times it the entry of largest magnitude is positive."""
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))[0]
    return torch.where(largest < 0, -1.0, 1.0).to(vectors)


def relative_error(approximation: Tensor, matrix: Tensor) -> float:
    """Frobenius norm of the difference over that of `matrix`; 0 if both are zero.

    >>> relative_error(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 4.0]]))
    0.8
    """
    difference = torch.linalg.vector_norm((approximation - matrix).double()).item()
    norm = torch.linalg.vector_norm(matrix.double()).item()
    return difference / norm if norm else (math.inf if difference else 0.0)
