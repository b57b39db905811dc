"""Words for a scene: what is really in it, at several lengths and in the manner of each source."""

import numpy as np

from colibri.testbed.world import Motion, Scene, Shape

PLACES = {
    "plain": "a plain {colour} backdrop",
    "meadow": "a green meadow under a clear blue sky",
    "sea": "a calm sea under an orange sky",
    "night": "a dark night sky with small stars",
}

_VERBS: dict[Motion, tuple[str, ...]] = {
    "left": ("moves to the left", "glides slowly to the left", "drifts left"),
    "right": ("moves to the right", "glides steadily to the right", "drifts right"),
    "up": ("rises upward", "floats upward", "climbs higher"),
    "down": ("sinks downward", "descends slowly", "moves down"),
    "still": ("stays still", "rests in one place", "hangs motionless"),
}

_TYPED: dict[Motion, tuple[str, ...]] = {
    "left": ("moves left", "moves to the left", "moving left", "slides left"),
    "right": ("moves right", "moves to the right", "moving right", "slides right"),
    "up": ("moves up", "moves upward", "moving up", "rises"),
    "down": ("moves down", "moves downward", "moving down", "falls"),
    "still": ("stays still", "does not move", "standing still", "stays in place"),
}

_TYPED_PLACES = {
    "plain": ("{article} {colour} background", "{article} {colour} backdrop"),
    "meadow": ("a green meadow", "a meadow under a blue sky"),
    "sea": ("the sea", "a calm sea at sunset"),
    "night": ("a night sky", "a dark night sky"),
}

_CAMERA = (
    "The camera remains static throughout, in a wide shot at eye level.",
    "The camera slowly zooms in, and the shallow depth of field keeps the focus on it.",
    "A smooth tracking shot follows the movement before the camera pans right.",
    "The scene is captured in a medium shot with soft, cinematic lighting.",
)

_MOOD = (
    "The overall atmosphere is calm and peaceful.",
    "This creates a sense of quiet and simplicity.",
    "It suggests a playful and dreamlike mood.",
    "The simple composition evokes a feeling of wonder.",
)


def place(scene: Scene) -> str:
    """The background in words."""
    return PLACES[scene.background].format(colour=scene.background_colour)


def terse(scene: Scene, rng: np.random.Generator) -> str:
    """Everything that a scene says, as a person would type it into a box."""
    parts = []
    for shape in scene.shapes:
        size = f"{size_word(shape)} " if rng.random() < 0.2 else ""
        verb = _pick(_TYPED[shape.motion], rng)
        parts.append(f"{_article(size or shape.colour)} {size}{shape.colour} {shape.name} {verb}")
    where = _pick(_TYPED_PLACES[scene.background], rng).format(
        colour=scene.background_colour, article=_article(scene.background_colour)
    )
    return f"{' and '.join(parts)} {_pick(('over', 'on', 'in front of'), rng)} {where}"


def short(scene: Scene, rng: np.random.Generator) -> str:
    """The action alone, as in MagicData: five to twelve words."""
    shape = scene.shapes[0]
    return f"A {shape.colour} {shape.name} {_pick(_VERBS[shape.motion], rng)}."


def plain(scene: Scene, rng: np.random.Generator) -> str:
    """One or two sentences that obey the caption rules."""
    first = scene.shapes[0]
    text = f"{_named(first)} {_pick(_VERBS[first.motion], rng)} over {place(scene)}."
    for other in scene.shapes[1:]:
        verb = _pick(_VERBS[other.motion], rng)
        text += f" Beside it, a {size_word(other)} {other.colour} {other.name} {verb}."
    return text


def long(scene: Scene, rng: np.random.Generator) -> str:
    """80 to 180 words in the manner of a vision-language captioner, as in OpenVid."""
    first = scene.shapes[0]
    opening = _pick(
        (
            "The video opens with a wide shot of",
            "The video shows",
            "In this video, we see",
            "The scene begins with",
            "The video features",
        ),
        rng,
    )
    sentences = [
        f"{opening} a {size_word(first)} {first.colour} {first.name} over {place(scene)}.",
        f"The {first.name} {_pick(_VERBS[first.motion], rng)} at an even pace, and its "
        f"{first.colour} surface stands out clearly against the background.",
        _pick(_CAMERA, rng),
    ]
    for other in scene.shapes[1:]:
        sentences.append(
            f"Next to it, a {size_word(other)} {other.colour} {other.name} "
            f"{_pick(_VERBS[other.motion], rng)}, keeping its distance from the {first.name}."
        )
    sentences += [_DETAIL[scene.background], _pick(_CAMERA, rng)]
    sentences += [
        f"As the video continues, the {first.name} keeps its shape and its size, with smooth "
        "edges and an even colour from one side to the other.",
        _pick(_MOOD, rng),
        "There are no people and no animals in the scene, and nothing else changes.",
    ]
    return " ".join(sentences)


def camera_heavy(scene: Scene, rng: np.random.Generator) -> str:
    """Mostly about how it is filmed."""
    first = scene.shapes[0]
    return (
        f"A low-angle close-up shot of a {first.colour} {first.name}, then the camera dollies out "
        f"into an aerial wide shot as the {first.name} {_VERBS[first.motion][0]} over "
        f"{place(scene)}. {_CAMERA[1]} {_CAMERA[2]} Shot on 35mm film with bokeh in 4K."
    )


def first_person(scene: Scene, rng: np.random.Generator) -> str:
    """As a person would tell it."""
    first = scene.shapes[0]
    return (
        f"I can see a {first.colour} {first.name} in my view, and I think it is lovely. "
        f"The {first.name} {_VERBS[first.motion][0]} over {place(scene)} while we watch. "
        f"Its {first.colour} surface is smooth and even."
    )


def size_word(shape: Shape) -> str:
    """large or small."""
    return "large" if shape.radius >= 0.17 else "small"


def _article(word: str) -> str:
    return "an" if word[0] in "aeiou" else "a"


def _named(shape: Shape) -> str:
    return f"A {size_word(shape)} {shape.colour} {shape.name}"


_DETAIL = {
    "plain": "The backdrop is smooth and has no texture, a little lighter at the top than at the "
    "bottom.",
    "meadow": "Low green hills run along the horizon, the grass has fine stripes, and the sky "
    "grows paler towards the ground.",
    "sea": "Gentle waves run across the dark blue water, and the sky above the horizon glows in "
    "warm orange tones.",
    "night": "Tiny white stars are scattered over the dark sky, which turns a little purple "
    "towards the bottom.",
}


def _pick(choices: tuple[str, ...], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]
