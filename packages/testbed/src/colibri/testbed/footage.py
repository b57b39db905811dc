"""Real footage that ships with the package; see data/ATTRIBUTION.md."""

from importlib.resources import as_file, files
from pathlib import Path

BIG_BUCK_BUNNY_CAPTION = (
    "The video opens with a medium shot of a large grey rabbit crawling out of a dark burrow under "
    "a grassy hill. The rabbit stands up on its hind legs, stretches both arms wide and yawns, and "
    "then rubs one eye with its paw. The camera remains static throughout, and the lighting is "
    "bright and natural, which creates a cheerful atmosphere. Thick roots and purple flowers hang "
    "above the burrow, and two grey rocks lie beside its entrance. In the background, a row of "
    "flat brown stones stands in front of tall dark trees and a pale blue sky. The grass is long "
    "and yellow-green, and a narrow dirt path leads away from the burrow. The overall mood of the "
    "scene is playful and relaxed, as if the rabbit has just woken up."
)


def big_buck_bunny() -> Path:
    """132 frames of Big Buck Bunny, 480x270, 25 frames a second, H.264."""
    with as_file(files("colibri.testbed") / "data" / "big_buck_bunny_480x270.mp4") as path:
        return path
