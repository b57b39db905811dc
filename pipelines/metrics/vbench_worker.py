"""Runs in the environment of VBench: text|image VIDEOS OUT DIMENSIONS RATIO.

A file `DIMENSION_eval_results.json` each; those that are there are not made again. The suite of
text lies in the package `vbench`, that of first frames in `vbench2_beta_i2v`.
"""

import sys
from pathlib import Path


def main() -> None:
    kind, videos, out, dimensions, ratio = sys.argv[1:]
    if kind == "text":
        import vbench

        suite = Path(vbench.__file__).parent / "VBench_full_info.json"
        judge, more = vbench.VBench("cuda", str(suite), out), {}
    else:
        import vbench2_beta_i2v

        suite = Path(vbench2_beta_i2v.__file__).parent / "vbench2_i2v_full_info.json"
        judge, more = vbench2_beta_i2v.VBenchI2V("cuda", str(suite), out), {"resolution": ratio}
    for name in dimensions.split(","):
        if not (Path(out) / f"{name}_eval_results.json").exists():
            judge.evaluate(videos_path=videos, name=name, dimension_list=[name], **more)


if __name__ == "__main__":
    main()
