"""A compiled step that several processes may share; also the program of each process that has a GPU of its own.

    RANK=0 WORLD_SIZE=2 ... python tests/compiled_step.py FOLDER
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

from model.distributed import own_part, synchronise_, training_processes


def compiled_step(device: str, backend: str) -> dict[str, torch.Tensor]:
    """Return weights and statistics of a network with batch norms after a step on a batch.

    Parameters
    ----------
    device : str
        Where.
    backend : str
        Of torch.compile; ``aot_eager`` is quick, as it does all but make kernels.

    Returns
    -------
    dict[str, torch.Tensor]
        Of the network, on the CPU.
    """
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU(),
        nn.Conv2d(4, 2, 3), nn.BatchNorm2d(2),
    ).to(device, torch.float64)
    images = torch.randn(4, 3, 10, 10).to(device, torch.float64) * torch.arange(1, 5, device=device).view(4, 1, 1, 1)
    optimiser = torch.optim.SGD(network.parameters(), 0.1)
    synchronise_([network], [optimiser])
    forward = torch.compile(network, dynamic=False, backend=backend)
    forward(own_part(images)).pow(3).mean().backward()
    optimiser.step()
    return {name: tensor.cpu() for name, tensor in network.state_dict().items()}


if __name__ == "__main__":
    with training_processes("cuda"):
        torch.save(compiled_step("cuda", "inductor"), Path(sys.argv[1], f"compiled-{dist.get_rank()}.pt"))
