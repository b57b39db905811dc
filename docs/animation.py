"""Makes docs/images/videos.gif: what the model that comes with the package draws.

python docs/animation.py
"""

import argparse
from pathlib import Path

import numpy as np
from colibri.infer.config import LookConfig
from colibri.infer.session import Session, SessionConfig, Text
from PIL import Image

PROMPTS = (
    "a red circle moves left over a blue background",
    "a yellow star moves down over a purple background",
    "a white square moves right over a meadow",
    "a green triangle stands still over the sea",
    "an orange circle moves up over a night sky",
    "a pink star moves right over a blue background",
)
"""As anybody might write them, none chosen for its result."""
SCALE, GAP = 2, 4


def main() -> None:
    """Sample, tile, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="folder or embedded:NAME; without it the default")
    parser.add_argument("--out", type=Path, default=Path("docs/images/videos.gif"))
    arguments = parser.parse_args()
    session = Session(SessionConfig(model=arguments.model, device="cpu"), say=print)
    videos = []
    for prompt in PROMPTS:
        text = Text(prompt=prompt)
        session.encode(text)
        videos.append(session.decode(session.sample(text, LookConfig(), seed=0)).frames)
    frames = [
        Image.fromarray(_tiled([video[i] for video in videos])) for i in range(len(videos[0]))
    ]
    hold = [125] * (len(frames) - 1) + [700]  # ms, at 8 frames a second
    frames[0].save(
        arguments.out, save_all=True, append_images=frames[1:], duration=hold, loop=0, optimize=True
    )
    print(arguments.out, f"{arguments.out.stat().st_size / 1e3:.0f} kB")


def _tiled(pictures: tuple[np.ndarray, ...]) -> np.ndarray:
    """Side by side on white, each pixel enlarged."""
    large = [picture.repeat(SCALE, 0).repeat(SCALE, 1) for picture in pictures]
    gap = np.full((large[0].shape[0], GAP, 3), 255, np.uint8)
    return np.concatenate([part for picture in large for part in (picture, gap)][:-1], axis=1)


if __name__ == "__main__":
    main()
