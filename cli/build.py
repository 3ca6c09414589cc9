"""`dualface build`: annotated photos to training shards."""

from pathlib import Path

import click

from cli.errors import one_sentence


@click.group()
def build():
    """Build training datasets (HDF5 shards)."""


@build.command()
@click.argument("root", metavar="ROOT", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("out_dir", metavar="OUT", type=click.Path(file_okay=False, path_type=Path))
@click.option("--face-model", default="open", show_default=True, help="'open', or a file of `face-model convert`.")
@click.option("--refit", is_flag=True, help="Fit the model to the landmarks; needs no BFM, ignores the annotated "
                                            "coefficients.")
@click.option("--size", type=click.IntRange(min=16), default=256, show_default=True,
              help="Side of the crop and of the maps, in pixels.")
@click.option("--chart", type=click.Choice(["default", "cylindrical", "harmonic", "file"]), default="default",
              show_default=True, help="UV chart; 'file' is the one that came with the model.")
@click.option("--encoding", type=click.Choice(["dense", "params"]), default="dense", show_default=True,
              help="dense: both maps in 16-bit fixed point; params: coefficients only, the reader makes the maps.")
@click.option("--count", type=click.IntRange(min=1), help="Take this many samples, drawn by the seed (the paper's "
                                                          "ASMD: 60000).  [default: all]")
@click.option("--shard-size", type=click.IntRange(min=1), default=1024, show_default=True, help="Samples a shard.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, show_default=True, help="Worker processes.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of --count.")
def asmd(root: Path, out_dir: Path, face_model: str, refit: bool, size: int, chart: str, encoding: str,
         count: int | None, shard_size: int, jobs: int, seed: int):
    """Turn annotated photos under ROOT (300W-LP, AFLW2000-3D) into attribute map shards in OUT.

    A run that was stopped continues when started again.

    \b
    Example: dualface build asmd 300W_LP shards --face-model bfm.h5 --jobs 8
    """
    from asmgen.build import build_asmd
    from bfm.model_file import load_model

    with one_sentence():
        summary = build_asmd(
            root, out_dir, load_model(face_model), size=size, encoding=encoding, chart=chart,
            shard_size=shard_size, jobs=jobs, seed=seed, count=count, refit=refit,
        )
    click.echo(summary)
