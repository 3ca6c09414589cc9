"""Products with a fixed sparse matrix, with gradient."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import scipy.sparse
import torch


class SparseOperator(NamedTuple):
    """A fixed sparse matrix and its transpose, which the gradient takes: both stored, as transposing means sorting.

    Attributes
    ----------
    matrix : torch.Tensor
        (M, N) sparse CSR.
    transposed : torch.Tensor
        (N, M) sparse CSR.
    """

    matrix: torch.Tensor
    transposed: torch.Tensor

    @classmethod
    def of(cls, matrix: scipy.sparse.sparray) -> SparseOperator:
        """Return the operator of a scipy matrix, in its precision."""
        return cls(*(_csr_tensor(scipy.sparse.csr_array(part)) for part in (matrix, matrix.T)))

    def to(self, device: torch.device | str) -> SparseOperator:
        """Return the operator on a device."""
        return SparseOperator(*(part.to(device) for part in self))

    def __matmul__(self, columns: torch.Tensor) -> torch.Tensor:
        """Return (M, K) products with (N, K) `columns`, with gradient to these."""
        return _SparseProduct.apply(columns, *self)


class _SparseProduct(torch.autograd.Function):

    @staticmethod
    def forward(ctx, columns, matrix, transposed):
        ctx.transposed = transposed
        return matrix @ columns.contiguous()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.transposed @ gradient.contiguous(), None, None


def _csr_tensor(matrix: scipy.sparse.csr_array) -> torch.Tensor:
    parts = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    with warnings.catch_warnings(), torch.sparse.check_sparse_tensor_invariants():
        warnings.filterwarnings("ignore", "Sparse CSR tensor support is in beta")
        return torch.sparse_csr_tensor(*parts, torch.from_numpy(matrix.data.copy()), matrix.shape)
