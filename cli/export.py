"""`dualface export`: shards and networks for other programs."""

from pathlib import Path

import click

from cli.command import Command, face_model_option
from cli.errors import one_sentence
from cli.output import json_option, progress, tell


@click.command(cls=Command)
@click.argument("source", metavar="SHARDS|RUN", type=click.Path(exists=True, path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--to", "form", required=True, type=click.Choice(["webdataset", "prnet", "onnx"]),
              help="webdataset: tar files of any SHARDS. prnet: a folder a face with its crop and its position map, of "
                   "ASMD SHARDS. onnx: one file of a network that reconstructs faces, of RUN; needs pip install "
                   "'dualface[onnx]'.")
@click.option("--tar-size", type=click.IntRange(min=1), help="Samples a tar file.  [default: 1000]")
@click.option("--texture", metavar="RUN", type=click.Path(exists=True, path_type=Path),
              help="Run of `train texture` to go with a geometry run (onnx).  [default: the linear albedo]")
@face_model_option("The model that SHARDS of encoding params, or RUN, were made with.")
@json_option
def export(
    source: Path, out: Path, form: str, tar_size: int | None, texture: Path | None, face_model: str, as_json: bool
):
    """Write SHARDS into the folder OUT, or the network of RUN into the file OUT, for other programs.

    RUN is one of `train fusion` or `train geometry`. A folder that is exported appears file by file, each whole; an
    export that was stopped is made once more when started again. An ONNX file is compared with torch before it
    appears.

    \b
    Example: dualface export shards tars --to webdataset
    """
    if tar_size and form != "webdataset":
        raise click.UsageError("--tar-size is for --to webdataset; leave it out")
    if texture and form != "onnx":
        raise click.UsageError("--texture is for --to onnx; leave it out")
    with one_sentence(ModuleNotFoundError):
        if form == "onnx":
            from bfm.model_file import load_model
            from model.dual_stream import load_dual_stream
            from model.onnx_export import export_onnx

            path, difference = export_onnx(load_dual_stream(source, texture, load_model(face_model), "cpu"), out)
            tell({"files": [path], "difference": difference},
                 f"wrote {path}; in ONNX Runtime it gives what torch gives to {difference:.1g}", as_json)
            return
        from texgen.export import export_position_maps, export_webdataset

        if form == "prnet":
            count = export_position_maps(source, out, face_model, progress)
            tell({"folder": out, "faces": count}, f"wrote {count} faces to {out}", as_json)
        else:
            paths = export_webdataset(source, out, face_model, tar_size or 1000, progress)
            tell({"folder": out, "files": paths}, f"wrote {len(paths)} tar file(s) to {out}", as_json)
