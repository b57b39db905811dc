"""Runs in the environment of cd-fvd: VIDEOS AGAINST OUT. I3D features, 16 frames at 256."""

import json
import sys
from pathlib import Path

from cdfvd import fvd


def main() -> None:
    videos, against, out = map(Path, sys.argv[1:])
    judge = fvd.cdfvd("i3d", n_real="full", n_fake="full")
    kind = {"resolution": 256, "sequence_length": 16, "data_type": "video_folder"}
    judge.compute_real_stats(judge.load_videos(str(against), **kind))
    judge.compute_fake_stats(judge.load_videos(str(videos), **kind))
    out.write_text(json.dumps({"fvd": float(judge.compute_fvd_from_stats())}))


if __name__ == "__main__":
    main()
