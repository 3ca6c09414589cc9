"""Speed and memory of the texture stream's generator, by how it stylises.

Times forward and backward of a mean of the generated map, on one batch of noise that lies on the device. ``kept`` is
what the forward pass keeps for the backward pass; ``peak`` is the most GPU memory that the steps take, weights, input
and gradients included, beyond what was taken before the variant was made, and only there on a GPU. The baseline is
AdaIN; ``n-fold copy`` is SRSM (n=16) with Eq. (13) and (14) written out, as reference for the two-matrix-product form.

    python benchmarks/bm_stylisation.py --batch-size 8 -o stylisation.json
"""

import gc
import json
import statistics
import time
from contextlib import nullcontext
from pathlib import Path
from unittest import mock

import click
import torch
from provenance import provenance
from timing import interleaved

import model.texture
from model.regions import EPSILON
from model.texture import TextureStream

WARM_UP = 3
VARIANTS = {
    "adain": {"stylisation": "adain"}, "transform": {"stylisation": "transform"},
    "n=8": {"regions": 8}, "n=16": {"regions": 16}, "n=32": {"regions": 32}, "n=16, n-fold copy": {"regions": 16},
}


def copied_stylise(content, regions, alpha, beta, whole_map):
    """Eq. (14) from an n-fold copy of the features."""
    with torch.autocast(content.device.type, enabled=False):
        copies = content.float()[:, None].expand(-1, regions.shape[1], -1, -1, -1)
        weights = (regions / regions.sum((2, 3), keepdim=True))[:, :, None]
        mean = (weights * copies).sum((3, 4), keepdim=True)
        variance = (weights * (copies - mean).square()).sum((3, 4), keepdim=True)
        normal = (copies - mean) / (variance + EPSILON).sqrt()
        stylised = (normal * beta[..., None, None] + alpha[..., None, None]) * regions[:, :, None]
        return stylised.sum(1).to(content.dtype)


def kept_bytes(network: TextureStream, given: list[torch.Tensor], autocast) -> int:
    """Return the bytes that a forward pass keeps for the backward pass, each storage once."""
    storages = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()  # an output that its own graph held would never be freed

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast:
        made = network(*given)  # alive while counting, so that no address is used twice
    assert made.requires_grad
    weights = {parameter.untyped_storage().data_ptr() for parameter in network.parameters()}
    return sum(size for place, size in storages.items() if place not in weights)


def time_variant(
    options: dict, width: float, size: int, batch_size: int, steps: int, device: torch.device, mixed: bool
) -> dict:
    """Time forward and backward of a variant, each until the device has finished, after some to warm up."""
    on_gpu = device.type == "cuda"
    before = free_memory(device)
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch_size, 3, size, size)] * 2 + [(batch_size, 68, size // 4, size // 4)]
    given = [torch.rand(shape, generator=generator).to(device) for shape in shapes]
    network = TextureStream(width=width, size=size, **options).to(device)
    if mixed:
        network = network.to(memory_format=torch.channels_last)
        given = [tensor.to(memory_format=torch.channels_last) for tensor in given]
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=mixed)
    kept, seconds = kept_bytes(network, given, autocast), []
    free_memory(device)
    for _ in range(WARM_UP + steps):
        network.zero_grad(set_to_none=True)
        clock = time.perf_counter()
        with autocast:
            albedo_map = network(*given)
        albedo_map.mean().backward()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - clock)
        del albedo_map
    timed = sorted(seconds[WARM_UP:])
    return {
        "milliseconds": round(1e3 * statistics.median(timed), 2),
        "milliseconds_10_to_90_percent": [round(1e3 * timed[int(part * (steps - 1))], 2) for part in (0.1, 0.9)],
        "kept_mib": round(kept / 2**20, 1),
        "peak_mib": round((torch.cuda.max_memory_allocated(device) - before) / 2**20, 1) if on_gpu else None,
        "before_mib": round(before / 2**20, 1) if on_gpu else None,
    }


def free_memory(device: torch.device) -> int:
    """Free what nothing refers to, begin the peak anew, and return the bytes still taken on a GPU; 0 on the CPU."""
    gc.collect()
    if device.type != "cuda":
        return 0
    torch.cuda.synchronize(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def table(results: list[dict]) -> str:
    """Return the results as lines of text, each beside AdaIN's."""
    base = results[0]
    lines = [f"{'':<20}{'ms':>9}{'x adain':>9}{'kept MiB':>10}{'x adain':>9}{'peak MiB':>10}{'x adain':>9}"]
    for result in results:
        line = f"{result['variant']:<20}"
        for key, wide in (("milliseconds", 9), ("kept_mib", 10), ("peak_mib", 10)):
            known = result[key] is not None
            line += f"{result[key]:>{wide}.1f}{result[key] / base[key]:>9.3f}" if known else " " * (wide + 9)
        lines.append(line.rstrip())
    return "\n".join(lines)


def measure(quick: bool) -> list[dict]:
    """Time forward and backward of both forms of SRSM in turns: rows for ``bench.py``."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    width, size, batch_size = (0.25, 64, 2) if quick else (1.0, 256, 8)
    given = [torch.rand(batch_size, 3, size, size, device=device) for _ in range(2)]
    given.append(torch.rand(batch_size, 68, size // 4, size // 4, device=device))
    network = TextureStream(width=width, size=size, regions=16).to(device)

    def step():
        network(*given).mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    def copied_step():
        with mock.patch.object(model.texture, "region_stylise", copied_stylise):
            step()

    copied, ours = interleaved({"copy": copied_step, "ours": step}, 10).values()
    return [{
        "operation": f"SRSM n=16, forward and backward, width {width}, {size} px",
        "baseline": f"n-fold copy of the features: {1e3 * copied.seconds:.1f} ms",
        "ours": f"{1e3 * ours.seconds:.1f} ms", "ratio": copied.seconds / ours.seconds,
    }]


@click.command()
@click.option("--width", type=float, default=1.0, show_default=True)
@click.option("--size", type=int, default=256, show_default=True)
@click.option("--batch-size", type=int, default=8, show_default=True)
@click.option("--steps", type=int, default=20, show_default=True, help="Timed steps of each variant.")
@click.option("--mixed-precision/--full-precision", default=True, help="bfloat16 convolutions; on a GPU only.")
@click.option("--device", help="[default: the GPU if there is one]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="JSON file.")
def main(width, size, batch_size, steps, mixed_precision, device, output):
    """Compare the ways to stylise by time and memory."""
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    on_gpu = device.type == "cuda"
    mixed = on_gpu and mixed_precision
    if on_gpu:
        torch.rand(1, 8, 8, device=device).matmul(torch.rand(8, 8, device=device))  # what cuBLAS takes for good, first
    results = []
    for variant, options in VARIANTS.items():
        copied = mock.patch.object(model.texture, "region_stylise", copied_stylise)
        with copied if "copy" in variant else nullcontext():
            results.append({
                "variant": variant, **time_variant(options, width, size, batch_size, steps, device, mixed)
            })
    click.echo(table(results))
    report = {
        "benchmark": "stylisation", **provenance(device),
        "width": width, "size": size, "batch_size": batch_size, "steps": steps, "mixed_precision": mixed,
        "results": results,
    }
    if output:
        output.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
