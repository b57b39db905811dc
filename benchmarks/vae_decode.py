"""Time, work, rate and peak memory of decoders in one run, growing length: `vae bench`, with a file
of figures. Light, 2D, fast Wan and diffusers' Wan, random weights; see colibri.vae.bench for what
is included. On a GPU at full size:

    python benchmarks/vae_decode.py --family wan2.2-ti2v-5b --light slim --frames 17 33 121 \\
        --dtype bfloat16 --decoders light-causal,light,2d,fast-wan,compiled-wan,diffusers-wan
"""

import sys
from pathlib import Path

from colibri.core.config import parse
from colibri.vae.bench import bench
from colibri.vae.config import BenchConfig
from rows import command

OUT = Path("benchmarks/results/vae_decode.json")


def main() -> None:
    """The table, and its JSON."""
    words = sys.argv[1:]
    if not any(word.split("=")[0] == "--out" for word in words):
        words += ["--out", str(OUT)]
    config = parse(BenchConfig, words, prog="vae_decode.py", description=str(__doc__), toml=None)
    bench(config)
    print(f"figures   {config.out}")


if __name__ == "__main__":
    command(main)
