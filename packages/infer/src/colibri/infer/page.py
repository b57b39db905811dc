"""The page of `infer serve` in Gradio: what is on it, and what its buttons do. Renders nothing."""

import html
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr  # type: ignore[import-not-found,unused-ignore]
from PIL import Image

from colibri.core.errors import UserError
from colibri.infer.recipe import Recipe
from colibri.infer.studio import Asked, Past, Progress, Studio

MOST_BYTES = 64_000_000
"""Of an image that is sent to the page."""
CSS = "progress { width: 100%; height: 10px; accent-color: #2a7f86 } .lead { opacity: .7 }"


def launch(studio: Studio, host: str, port: int) -> tuple[Any, str]:
    """Serve the page from a thread; the running page and its address."""
    page = build_page(studio)
    _, url, _ = page.launch(
        server_name=host,
        server_port=port,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        inbrowser=False,
        footer_links=[],
        max_file_size=MOST_BYTES,
        # Fonts of the system: the page asks nothing of the network.
        theme=gr.themes.Default(
            font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
        ),
        css=CSS,
    )
    return page, url


def build_page(studio: Studio) -> Any:
    """The page, not yet served."""
    family, recipe = studio.source.family, studio.recipe
    with gr.Blocks(title="Colibri", analytics_enabled=False, fill_width=True) as page:
        lead = html.escape(f"{studio.source.line()} {studio.line}")
        gr.HTML(f"<h1>Colibri</h1><p class='lead'>{lead}</p>")
        who, shown = gr.State(""), gr.State([])
        with gr.Row():
            with gr.Column(scale=2):
                prompt = gr.Textbox(
                    label="Prompt", lines=4, elem_id="prompt", placeholder="What the video shows"
                )
                image = gr.Image(
                    label="First frame (optional)",
                    type="filepath",
                    image_mode=None,
                    sources=["upload", "clipboard"],
                    visible=family.expand_timesteps,
                    height=220,
                    elem_id="image",
                )
                with gr.Row():
                    seed = gr.Number(label="Seed", value=0, precision=0, elem_id="seed")
                    steps = gr.Number(
                        label="Steps", value=recipe.flow.steps, precision=0, elem_id="steps"
                    )
                with gr.Row():
                    make = gr.Button("Make the video", variant="primary", elem_id="make")
                    stop = gr.Button("Stop", elem_id="stop")
            with gr.Column(scale=3):
                status = gr.Textbox(
                    label="Progress", value="", interactive=False, lines=2, elem_id="status"
                )
                bar = gr.HTML(_bar(0.0))
                preview = gr.Image(
                    label="The video so far, roughly, from its beginning to its end",
                    interactive=False,
                    visible=False,
                    format="png",
                    buttons=[],
                    elem_id="preview",
                )
                video = gr.Video(
                    label="Video",
                    interactive=False,
                    autoplay=True,
                    loop=True,
                    height=420,
                    elem_id="video",
                )
                facts = gr.Textbox(label="Recipe", interactive=False, lines=2, elem_id="facts")
        history = gr.Gallery(
            label=f"History: {studio.config.out}",
            columns=6,
            fit_columns=False,
            height="auto",
            allow_preview=False,
            interactive=False,
            buttons=[],
            elem_id="history",
        )

        def render(
            prompt: str, image: str | None, seed: float | None, steps: float | None, who: str
        ) -> Iterator[dict[Any, Any]]:
            yield {status: "", facts: "", video: None, bar: _bar(0.0)}
            try:
                asked = _asked(prompt, image, seed, steps, who)
                for progress in studio.render(asked):
                    yield show(progress)
            except UserError as error:
                yield {status: f"Error: {error}", bar: _bar(0.0), preview: gr.update(visible=False)}

        def show(progress: Progress) -> dict[Any, Any]:
            changed: dict[Any, Any] = {status: progress.text, bar: _bar(progress.share)}
            picture = _open(progress.preview)
            if picture is not None:
                changed[preview] = gr.update(value=picture, visible=True)
            if progress.share in (0.0, 1.0):
                changed[preview] = gr.update(value=None, visible=False)
            if progress.video is not None:
                past = studio.history()
                own = [one for one in past if one.video == progress.video]
                changed |= {video: str(progress.video), facts: _facts(own[0]) if own else ""}
                changed |= {history: _tiles(past), shown: [str(one.video) for one in past]}
            return changed

        def load() -> dict[Any, Any]:
            past = studio.history()
            names = [str(one.video) for one in past]
            return {history: _tiles(past), shown: names, who: uuid.uuid4().hex}

        def choose(shown: list[str], event: gr.SelectData) -> dict[Any, Any]:
            path = shown[event.index]
            found = [one for one in studio.history() if str(one.video) == path]
            if not found:
                return {status: f"Error: {path} is not there any more"}
            recipe = found[0].recipe
            return {
                video: path,
                facts: _facts(found[0]),
                prompt: recipe.prompt,
                seed: recipe.seed,
                steps: recipe.flow.steps,
                status: path,
            }

        def halt(who: str) -> dict[Any, Any]:
            return {} if studio.stop(who) else {status: "Nothing is being made"}

        gr.on(
            [make.click, prompt.submit],
            render,
            inputs=[prompt, image, seed, steps, who],
            outputs=[status, bar, preview, video, facts, history, shown],
            show_progress="hidden",
            concurrency_limit=16,  # they wait in the studio, which renders one at a time
            api_visibility="private",
        )
        stop.click(
            halt, inputs=[who], outputs=[status], show_progress="hidden", api_visibility="private"
        )
        page.load(
            load, outputs=[history, shown, who], show_progress="hidden", api_visibility="private"
        )
        history.select(
            choose,
            inputs=[shown],
            outputs=[video, facts, prompt, seed, steps, status],
            show_progress="hidden",
            api_visibility="private",
        )
    return page


def _asked(
    prompt: str, image: str | None, seed: float | None, steps: float | None, who: str
) -> Asked:
    """UserError where a field is not filled in as it has to be."""
    if not prompt or not prompt.strip():
        raise UserError("the prompt is empty", hint="say what the video shows")
    if seed is None or seed < 0 or seed != int(seed):
        raise UserError(f"the seed is a whole number from 0, found {seed}")
    if steps is not None and (steps < 1 or steps != int(steps)):
        raise UserError(f"steps are a whole number from 1, found {steps}")
    return Asked(
        prompt=prompt,
        image=Path(image) if image else None,
        seed=int(seed),
        steps=None if steps is None else int(steps),
        who=who,
    )


def _open(path: Path | None) -> Image.Image | None:
    """The picture, unless the video has taken its place meanwhile."""
    if path is None:
        return None
    try:
        with Image.open(path) as opened:
            return opened.convert("RGB")
    except OSError:
        return None


def _tiles(past: list[Past]) -> list[tuple[str, str]]:
    return [(str(one.video), f"{one.recipe.prompt[:80]} ({one.recipe.seed})") for one in past]


def _facts(past: Past) -> str:
    lines = [_line(past.recipe), str(past.video)]
    if past.recipe.prompt_used != past.recipe.prompt:
        lines.append(f"given to the model (by {past.recipe.recap}): {past.recipe.prompt_used}")
    if past.scores is not None and past.scores.main:
        lines.append(", ".join(f"{name} {value:.3g}" for name, value in past.scores.main.items()))
    return "\n".join(lines)


def _line(recipe: Recipe) -> str:
    return (
        f"seed {recipe.seed}, {recipe.width}x{recipe.height}, {recipe.frames} frames at "
        f"{recipe.fps}/s, {recipe.sampler}, {recipe.flow.steps} steps, guidance {recipe.guidance:g}"
    )


def _bar(share: float) -> str:
    return f'<progress max="1" value="{share:.3f}"></progress>'
