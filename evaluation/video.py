"""Closed-loop episodes as pictures: composed frames, mp4, gif and contact sheets. Drawn with Pillow, for speed."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ..files import replacing
from .style import BLUE, FAINT, GREEN, INK, MUTED, PAPER

Pixels = NDArray[np.uint8]

WIDTH, HEIGHT = 800, 480
_SCENE = HEIGHT
_LEFT, _RIGHT = _SCENE + 20, WIDTH - 20
_TILE = (_RIGHT - _LEFT - 16) // 2
_TILES_TOP = 84
_CURVE = (_LEFT, 266, _RIGHT, 368)
_TEXT_TOP = 392


@dataclass(frozen=True)
class FilmFrame:
    """One moment of a closed-loop episode. Images are (H, W, 3) uint8 of any size.

    `scene` is for people, `goal` and `seen` are what the model is given (`seen=None` when it sees no pixels). `energy`
    is that of the plan being executed (None or non-finite leaves a gap), `plan_ms` the milliseconds it took,
    `distance_cm` the true distance to the goal in centimetres, and `success` says whether the goal holds now.
    """

    scene: Pixels
    goal: Pixels
    seen: Pixels | None
    step: int
    success: bool
    energy: float | None = None
    plan_ms: float | None = None
    distance_cm: float | None = None


class EpisodeFilm:
    """Composes the frames of one episode of at most `steps` steps, remembering energies to draw them as a curve."""

    def __init__(self, env: str, planner: str, steps: int, *, note: str = "") -> None:
        self._steps = steps
        self._energies: list[tuple[int, float]] = []
        self._page = _page(env, planner, note)

    def compose(self, frame: FilmFrame) -> Pixels:
        """Draw `frame`: (480, 800, 3) uint8. Frames come in the order of their steps."""
        if frame.energy is not None and math.isfinite(frame.energy):
            self._energies.append((frame.step, frame.energy))
        page = self._page.copy()
        draw = ImageDraw.Draw(page)
        page.paste(_fit(frame.scene, _SCENE, Image.Resampling.BILINEAR), (0, 0))
        for i, (name, pixels) in enumerate((("goal image", frame.goal), ("the model sees", frame.seen))):
            left = _LEFT + i * (_TILE + 16)
            _write(draw, (left, _TILES_TOP - 18), name, 12, MUTED)
            if pixels is None:
                _write(draw, (left + _TILE // 2, _TILES_TOP + _TILE // 2), "state, no pixels", 12, MUTED, anchor="mm")
            else:
                page.paste(_fit(pixels, _TILE, Image.Resampling.NEAREST), (left, _TILES_TOP))
        self._draw_curve(page, frame.step)
        self._draw_numbers(draw, frame)
        return np.asarray(page)

    def _draw_curve(self, page: Image.Image, step: int) -> None:
        left, top, right, bottom = _CURVE
        draw = ImageDraw.Draw(page)
        if not self._energies:
            _write(draw, ((left + right) // 2, (top + bottom) // 2), "no energy: nothing is planned", 12, MUTED, "mm")
            return
        values = [energy for _, energy in self._energies]
        _write(draw, (left, top - 20), "energy of the plan", 12, MUTED)
        _write(draw, (right, top - 20), f"{values[-1]:.3g}", 12, BLUE, "ra")
        low, high = min(0.0, *values), max(0.0, *values)
        # Pillow does not smooth lines: draw at twice the size and shrink.
        width, height, pad = 2 * (right - left), 2 * (bottom - top), 8
        canvas = Image.new("RGB", (width, height), PAPER)
        pen = ImageDraw.Draw(canvas)
        pen.line((0, height - 2, width, height - 2), fill=FAINT, width=3)
        points = [
            (
                pad + (width - 2 * pad) * at / max(self._steps, 1),
                height - pad - (height - 2 * pad) * (value - low) / (high - low or 1.0),
            )
            for at, value in self._energies
        ]
        if len(points) > 1:
            pen.line(points, fill=BLUE, width=4, joint="curve")
        x, y = points[-1]
        pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill=BLUE)
        page.paste(canvas.reduce(2), (left, top))

    def _draw_numbers(self, draw: ImageDraw.ImageDraw, frame: FilmFrame) -> None:
        numbers = (
            ("step", f"{frame.step} / {self._steps}"),
            ("plan", "-" if frame.plan_ms is None else f"{frame.plan_ms:.3g} ms"),
            ("distance", "-" if frame.distance_cm is None else f"{frame.distance_cm:.1f} cm"),
        )
        for i, (name, value) in enumerate(numbers):
            left = _LEFT + i * 96
            _write(draw, (left, _TEXT_TOP), name, 12, MUTED)
            _write(draw, (left, _TEXT_TOP + 16), value, 17, INK)
        if frame.success:
            y = HEIGHT - 24
            draw.line(((_LEFT, y), (_LEFT + 5, y + 6), (_LEFT + 15, y - 7)), fill=GREEN, width=4, joint="curve")
            _write(draw, (_LEFT + 24, y), "at the goal", 17, GREEN, "lm")


def write_mp4(path: str | Path, frames: Iterable[Pixels], fps: float) -> Path:
    """Encode (H, W, 3) uint8 frames as H.264, yuv420p, playable by browsers, and rename the whole file into place.

    Odd sizes lose their last row or column, for yuv420p halves both. Frames are streamed: a generator will do.
    Raises ValueError when there are no frames or their sizes differ.
    """
    stream = iter(frames)
    first = next(stream, None)
    if first is None:
        raise ValueError(f"no frames for {path}")
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    with replacing(path) as temporary:
        writer: Any = imageio.get_writer(  # imageio leaves the writers of its plugins untyped
            temporary,
            format="FFMPEG",  # pyright: ignore[reportArgumentType]
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            quality=None,
            macro_block_size=2,
            output_params=["-crf", "23", "-movflags", "+faststart"],
        )
        with closing(writer):  # not `with writer`, which leaves ffmpeg running after an error
            for frame in chain((first,), stream):
                if frame.shape != first.shape:
                    raise ValueError(f"a video's frames must have one size, got {first.shape} and then {frame.shape}")
                writer.append_data(np.ascontiguousarray(frame[:height, :width]))
    return Path(path)


def write_gif(path: str | Path, frames: Iterable[Pixels], fps: float, *, width: int = 400, colours: int = 64) -> Path:
    """A small endless gif for a README: frames shrunk to `width` pixels, all in the palette of the middle one.

    Raises ValueError when there are no frames.
    """
    images = [_shrink(frame, width) for frame in frames]
    if not images:
        raise ValueError(f"no frames for {path}")
    # One palette and no dithering: what does not move then costs nothing, and does not flicker.
    palette = images[len(images) // 2].quantize(colours, method=Image.Quantize.MEDIANCUT)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    with replacing(path) as temporary:
        indexed[0].save(
            temporary, save_all=True, append_images=indexed[1:], duration=round(1000 / fps), loop=0, optimize=True
        )
    return Path(path)


def contact_sheet(frames: Sequence[Pixels], *, count: int = 6, width: int = 1200, gap: int = 6) -> bytes:
    """A PNG strip of `count` frames, evenly spaced from the first to the last, `width` pixels wide in all."""
    if not len(frames):
        raise ValueError("no frames for a contact sheet")
    picks = np.unique(np.linspace(0, len(frames) - 1, count).round().astype(int))
    tiles = [_shrink(frames[i], (width - gap * (len(picks) - 1)) // len(picks)) for i in picks]
    sheet = Image.new("RGB", (width, tiles[0].height), PAPER)
    for i, tile in enumerate(tiles):
        sheet.paste(tile, (i * (tile.width + gap), 0))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _page(env: str, planner: str, note: str) -> Image.Image:
    """What stays the same in all frames of an episode."""
    page = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    _write(draw, (_LEFT, 16), env, 20, INK)
    _write(draw, (_RIGHT, 20), planner, 16, BLUE, "ra")
    _write(draw, (_LEFT, 42), note, 12, MUTED)
    for i in range(2):
        left = _LEFT + i * (_TILE + 16)
        draw.rectangle((left - 1, _TILES_TOP - 1, left + _TILE, _TILES_TOP + _TILE), outline=FAINT)
    return page


def _write(
    draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, colour: str, anchor: str = "la"
) -> None:
    draw.text(at, text, fill=colour, font=_font(size), anchor=anchor)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    # The font that comes with Pillow: the same everywhere, ASCII enough.
    return ImageFont.load_default(size)


def _fit(pixels: Pixels, size: int, resampling: Image.Resampling) -> Image.Image:
    """A square of `size` pixels."""
    image = Image.fromarray(pixels)
    return image if image.size == (size, size) else image.resize((size, size), resampling)


def _shrink(pixels: Pixels, width: int) -> Image.Image:
    image = Image.fromarray(pixels)
    return image.resize((width, round(width * image.height / image.width)), Image.Resampling.LANCZOS)
