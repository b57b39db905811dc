"""The ComfyUI node pack without ComfyUI: its contract, and its example run as a graph."""

import importlib.util
import inspect
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from colibri.core.errors import UserError
from colibri.infer.cli import main
from colibri.infer.image import hash_pixels
from colibri.infer.recipe import read_video
from PIL import Image

PACK = Path(__file__).parents[2] / "integrations" / "comfyui"
PROMPT = "a red circle moves left over a blue background"
SMALL = {"width": 32, "height": 32, "frames": 5}
FLAGS = ["--size", "32x32", "--frames", "5", "--steps", "2"]


@pytest.fixture(scope="module")
def pack() -> Iterator[ModuleType]:
    """Imported as ComfyUI imports a folder of custom_nodes."""
    name = "custom_nodes_colibri"
    spec = importlib.util.spec_from_file_location(
        name, PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for loaded in [one for one in sys.modules if one.split(".")[0] == name]:
        del sys.modules[loaded]


@torch.inference_mode()
def run(pack: ModuleType, graph: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Every node's outputs, each node run after those that it takes from."""
    done: dict[str, tuple[Any, ...]] = {}

    def outputs(key: str) -> tuple[Any, ...]:
        if key not in done:
            node = graph[key]
            kind = pack.NODE_CLASS_MAPPINGS[node["class_type"]]
            given = {
                name: outputs(value[0])[value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
            made = getattr(kind(), kind.FUNCTION)(**given)
            done[key] = made["result"] if isinstance(made, dict) else made
        return done[key]

    for key in graph:
        outputs(key)
    return done


def example(**settings: object) -> dict[str, Any]:
    graph: dict[str, Any] = json.loads((PACK / "example_workflow.json").read_text())
    graph["3"]["inputs"] |= SMALL | settings
    return graph


def test_every_node_keeps_the_contract(pack: ModuleType) -> None:
    assert pack.NODE_CLASS_MAPPINGS.keys() == pack.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for kind in pack.NODE_CLASS_MAPPINGS.values():
        inputs = kind.INPUT_TYPES()
        assert set(inputs) <= {"required", "optional"}
        takes = inspect.signature(getattr(kind, kind.FUNCTION)).parameters
        assert list(takes) == ["self", *inputs["required"], *inputs.get("optional", {})]
        for name in inputs.get("optional", {}):
            assert takes[name].default is not inspect.Parameter.empty
        assert isinstance(kind.RETURN_TYPES, tuple)
        assert len(kind.RETURN_TYPES) == len(kind.RETURN_NAMES)
        assert isinstance(kind.CATEGORY, str)


def test_links_of_the_example_fit_their_inputs(pack: ModuleType) -> None:
    graph = example()
    for node in graph.values():
        inputs = pack.NODE_CLASS_MAPPINGS[node["class_type"]].INPUT_TYPES()
        known = inputs["required"] | inputs.get("optional", {})
        assert inputs["required"].keys() <= node["inputs"].keys() <= known.keys()
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                source = pack.NODE_CLASS_MAPPINGS[graph[value[0]]["class_type"]]
                assert source.RETURN_TYPES[value[1]] == known[name][0]


def test_the_example_makes_the_frames_of_infer_t2v(
    pack: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run(pack, example(seed=7))
    images, fps, _ = done["4"]
    assert images.shape == (5, 32, 32, 3)
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert main(["t2v", "--prompt", PROMPT, "--seed", "7", "--out", "own.mp4", *FLAGS]) == 0
    recipe, made = read_video(Path("own.mp4"))
    frames = (images.numpy() * 255).round().astype(np.uint8)
    assert hash_pixels(frames) == made.frames_sha256
    assert fps == recipe.fps
    (file,) = done["5"]
    ours, _ = read_video(Path(file))
    assert ours.fingerprint == recipe.fingerprint
    assert Path(file).parent.name == "colibri"
    assert main(["replay", file]) == 0


def test_an_image_is_the_first_frame_as_of_infer_i2v(
    pack: ModuleType, ti2v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("photo.png")
    graph = example(image=torch.from_numpy(pixels.astype(np.float32) / 255)[None])
    graph["1"]["inputs"]["model"] = str(ti2v)
    images = run(pack, graph)["4"][0]
    flags = ["--model", str(ti2v), "--image", "photo.png", "--out", "own.mp4", *FLAGS]
    assert main(["i2v", "--prompt", PROMPT, *flags]) == 0
    _, made = read_video(Path("own.mp4"))
    assert hash_pixels((images.numpy() * 255).round().astype(np.uint8)) == made.frames_sha256


def test_bad_input_is_one_sentence(pack: ModuleType, tmp_path: Path) -> None:
    graph = example()
    graph["2"]["inputs"]["prompt"] = " "
    with pytest.raises(UserError, match="the prompt: the prompt is empty"):
        run(pack, graph)
    (tmp_path / "words.txt").write_text("circle\n")
    graph = example()
    graph["1"]["inputs"]["safety"] = f"words:{tmp_path / 'words.txt'}"
    with pytest.raises(UserError, match="circle"):
        run(pack, graph)
