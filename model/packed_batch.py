"""The samples of a batch in one block of bytes, which goes from a worker to the trainer, and on to a GPU, in one piece.

Each tensor that crosses processes costs both of them half a millisecond, however small it is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch

_ALIGNMENT = 64  # bytes


@dataclass(frozen=True, eq=False)
class PackedBatch:
    """Samples, collated.

    Attributes
    ----------
    block : torch.Tensor
        (bytes,) uint8, field after field.
    layout : tuple[tuple[str, torch.dtype, tuple[int, ...], bool], ...]
        Of each field its name, type, shape (B, ...), and whether it is of images, (B, S, S, 3).
    """

    block: torch.Tensor
    layout: tuple[tuple[str, torch.dtype, tuple[int, ...], bool], ...]

    @classmethod
    def of(cls, samples: Sequence[dict[str, np.ndarray]], images: Collection[str]) -> PackedBatch:
        """Return samples, of the same fields and shapes, packed; the fields `images` are (S, S, 3)."""
        columns = {key: [sample[key] for sample in samples] for key in samples[0]}
        layout = tuple(
            (key, torch.from_numpy(first).dtype, (len(samples), *first.shape), key in images)
            for key, (first, *_) in columns.items()
        )
        packed = cls(torch.empty(sum(map(_size, layout)), dtype=torch.uint8), layout)
        for (key, *_), stored in zip(layout, packed._stored()):
            np.stack(columns[key], out=stored.numpy())
        return packed

    def pin_memory(self) -> PackedBatch:
        """Return a copy from which a GPU reads without the processor; a `DataLoader` calls this."""
        return PackedBatch(self.block.pin_memory(), self.layout)

    def on(self, device: torch.device, stream: torch.cuda.Stream | None) -> PackedBatch:
        """Return the batch on a device; on a GPU it is copied by a stream, for which the current one waits."""
        if stream is None:
            return self
        with torch.cuda.stream(stream):
            block = self.block.to(device, non_blocking=True)
        current = torch.cuda.current_stream(device)
        current.wait_stream(stream)
        block.record_stream(current)
        return PackedBatch(block, self.layout)

    def fields(self) -> dict[str, torch.Tensor]:
        """Return each field, a view of the block; images (B, 3, S, S), the channels last in memory."""
        return {
            key: stored.permute(0, 3, 1, 2) if is_image else stored
            for (key, _, _, is_image), stored in zip(self.layout, self._stored())
        }

    def _stored(self) -> list[torch.Tensor]:
        """The fields as they lie in the block."""
        parts = self.block.split([_size(entry) for entry in self.layout])
        return [
            part[:math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
            for part, (_, dtype, shape, _) in zip(parts, self.layout)
        ]


def _size(entry: tuple) -> int:
    """Bytes of a field in the block, so that the next one is aligned."""
    _, dtype, shape, _ = entry
    return -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
