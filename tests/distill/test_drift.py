"""What the meters of a long clip answer to, and what they do not."""

import numpy as np
from colibri.distill.drift import drift, seam, windows

RAMP = np.linspace(40, 180, 24) + 8 * (np.arange(24) % 2)


def _clip(frames: int = 49) -> np.ndarray:
    """A striped ramp of grey with a small white square that moves to the right."""
    video = np.repeat(np.tile(RAMP, (24, 1))[None, :, :, None], frames, axis=0).repeat(3, axis=3)
    for index in range(frames):
        video[index, 10:14, index % 20 : index % 20 + 4] = 255
    return video.astype(np.uint8)


def test_windows_share_a_frame_and_have_one_length() -> None:
    found = windows(_clip(52), 17)
    assert [len(window) for window in found] == [17, 17, 17]
    assert np.array_equal(found[0][-1], found[1][0])


def test_a_clip_that_only_moves_does_not_drift() -> None:
    for found in drift(_clip(), 17):
        assert found.colour < 1.5
        assert abs(found.sharpness - 1) < 0.06
        assert found.scene < 3


def test_each_meter_answers_to_its_own_drift() -> None:
    video = _clip()
    bright, soft, shifted = (video.astype(float).copy() for _ in range(3))
    bright[33:] = bright[33:] * 1.2
    soft[33:, :, 1:-1] = (soft[33:, :, :-2] + 2 * soft[33:, :, 1:-1] + soft[33:, :, 2:]) / 4
    shifted[33:] = shifted[33:, :, ::-1]
    clips = (np.clip(clip, 0, 255).astype(np.uint8) for clip in (bright, soft, shifted))
    by_colour, by_blur, by_scene = (drift(clip, 17)[2] for clip in clips)
    assert by_colour.colour > 10
    assert by_blur.sharpness < 0.9
    assert by_blur.colour < 3
    assert by_scene.scene > 30
    assert by_scene.colour < 1.5
    assert abs(by_scene.sharpness - 1) < 0.06


def test_a_jump_at_blocks_edges_is_a_seam() -> None:
    video = _clip(33).astype(int)
    edges, others = [1, 9, 17, 25], [5, 13, 21, 29]
    assert abs(seam(video.astype(np.uint8), edges, others) - 1) < 0.15
    for start in (9, 25):
        video[start : start + 8] -= 20
    assert seam(np.clip(video, 0, 255).astype(np.uint8), edges, others) > 3
