"""Runs in the environment of LPIPS: VIDEOS AGAINST OUT. Mean over frames, then over videos."""

import json
import sys
from pathlib import Path

import av
import lpips
import torch


def main() -> None:
    videos, against, out = map(Path, sys.argv[1:])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = lpips.LPIPS(net="alex").to(device)
    found = []
    for path in sorted(against.glob("*.mp4")):
        pairs = zip(frames(videos / path.name), frames(path), strict=True)
        with torch.no_grad():
            distances = [network(one.to(device), true.to(device)).item() for one, true in pairs]
        found.append(sum(distances) / len(distances))
    if not found:
        raise SystemExit(f"{against} holds no video")
    out.write_text(json.dumps({"lpips": sum(found) / len(found)}))


def frames(path: Path):
    """Each frame as (1, 3, rows, columns) in [-1, 1]."""
    with av.open(str(path)) as file:
        for frame in file.decode(video=0):
            pixels = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            yield pixels.permute(2, 0, 1)[None].float() / 127.5 - 1


if __name__ == "__main__":
    main()
