"""Closed-loop episodes as pictures: composed frames, mp4, gif and contact sheets. Drawn with Pillow, for speed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
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
_GOAL_ALONE = 156
_TILES_TOP = 84
_CURVE = (_LEFT, 266, _RIGHT, 368)
_TEXT_TOP = 392


@dataclass(frozen=True)
class FilmFrame:
    """One moment of a closed-loop episode. Images are (H, W, 3) uint8 of any size.

    `scene` is for people, `goal` and `seen` are what the model is given (`seen=None` when it sees no pixels; `goal` is
    then for people too). `plan_ms` are the milliseconds that the plan being executed took, `distance_cm` the true
    distance to the goal in centimetres, and `success` says whether the goal holds now.
    """

    scene: Pixels
    goal: Pixels
    seen: Pixels | None
    step: int
    success: bool
    plan_ms: float | None = None
    distance_cm: float | None = None


class EpisodeFilm:
    """Composes the frames of an episode of at most `steps` steps. `energies` are of the plans that were executed, one a
    step, drawn as a curve up to the step of a frame; None or a non-finite one leaves a gap."""

    def __init__(
        self,
        env: str,
        planner: str,
        steps: int,
        *,
        energies: Sequence[float | None] = (),
        sees_pixels: bool = True,
        note: str = "",
    ) -> None:
        self._steps = steps
        self._curve = [(i + 1, e) for i, e in enumerate(energies) if e is not None and math.isfinite(e)]
        # Energies fall by decades in the first steps. Those that may be negative have no logarithm.
        self._log = all(energy > 0 for _, energy in self._curve)
        left, top = _LEFT, _TILES_TOP
        # A model's pixels are shown as they are; a picture for people is made smaller.
        self._resampling = Image.Resampling.NEAREST if sees_pixels else Image.Resampling.BOX
        if sees_pixels:
            second = left + _TILE + 16
            self._tiles = {"goal image": (left, top, _TILE), "the model sees": (second, top, _TILE)}
        else:
            self._tiles = {"goal": (left, top, _GOAL_ALONE)}
        self._page = _page(env, planner, note, self._tiles)

    def compose(self, frame: FilmFrame) -> Pixels:
        """Draw `frame`: (480, 800, 3) uint8."""
        page = self._page.copy()
        draw = ImageDraw.Draw(page)
        page.paste(_fit(frame.scene, _SCENE, Image.Resampling.BILINEAR), (0, 0))
        for (left, top, size), pixels in zip(self._tiles.values(), (frame.goal, frame.seen), strict=False):
            if pixels is not None:
                page.paste(_fit(pixels, size, self._resampling), (left, top))
        self._draw_curve(page, frame.step)
        self._draw_numbers(draw, frame)
        return np.asarray(page)

    def _draw_curve(self, page: Image.Image, step: int) -> None:
        left, top, right, bottom = _CURVE
        draw = ImageDraw.Draw(page)
        if not self._curve:
            _write(draw, ((left + right) // 2, (top + bottom) // 2), "no energy: nothing is planned", 12, MUTED, "mm")
            return
        _write(draw, (left, top - 20), f"energy of the plan{', logarithmic' * self._log}", 12, MUTED)
        low, high = (limit(energy for _, energy in self._curve) for limit in (min, max))
        if not self._log:
            low, high = min(0.0, low), max(0.0, high)
        if low < high:
            for value, y, anchor in ((high, top, "ra"), (low, bottom, "rd")):
                _write(draw, (right, y), f"{value:.2g}", 11, MUTED, anchor)
        # Pillow does not smooth lines: draw at twice the size and shrink.
        width, height, pad = 2 * (right - left - 48), 2 * (bottom - top), 8
        canvas = Image.new("RGB", (width, height), PAPER)
        pen = ImageDraw.Draw(canvas)
        pen.line((0, height - 2, width, height - 2), fill=FAINT, width=3)
        scale = math.log if self._log else float
        span = scale(high) - scale(low) or 1.0
        points = [
            (
                pad + (width - 2 * pad) * at / max(self._steps, 1),
                height - pad - (height - 2 * pad) * (scale(energy) - scale(low)) / span,
            )
            for at, energy in self._curve
            if at <= step
        ]
        if len(points) > 1:
            pen.line(points, fill=BLUE, width=4, joint="curve")
        if points:
            x, y = points[-1]
            pen.ellipse((x - 7, y - 7, x + 7, y + 7), fill=BLUE)
            _write(draw, (right, top - 20), f"{self._curve[len(points) - 1][1]:.3g}", 12, BLUE, "ra")
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

    Raises:
        ValueError: when there are no frames or their sizes differ.
        OSError: when ffmpeg fails, or not every frame can be read back; nothing is left of the film.
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
        count = 0
        with closing(writer):  # not `with writer`, which leaves ffmpeg running after an error
            for frame in chain((first,), stream):
                if frame.shape != first.shape:
                    raise ValueError(f"a video's frames must have one size, got {first.shape} and then {frame.shape}")
                _append(writer, np.ascontiguousarray(frame[:height, :width]))
                count += 1
        _check_whole(temporary, count)
    return Path(path)


def _append(writer: Any, frame: Pixels) -> None:
    try:
        writer.append_data(frame)
    except OSError as error:  # imageio's message goes on for lines
        raise OSError(f"ffmpeg stopped, {str(error).splitlines()[0]}") from error


def _check_whole(path: Path, count: int) -> None:
    """OSError unless all frames can be read back: that ffmpeg met a full disk, say, imageio does not tell."""
    try:
        found, _ = imageio_ffmpeg.count_frames_and_secs(path)
    except (OSError, RuntimeError, ValueError):  # the last of a film without a readable frame
        found = 0
    if found != count:
        raise OSError(f"of {count} frames that were written {found} can be read back; is the disk full?")


def write_gif(path: str | Path, frames: Iterable[Pixels], fps: float, *, width: int = 400, colours: int = 64) -> Path:
    """A small endless gif for a README: frames shrunk to `width` pixels, all in the palette of the middle one.

    A gif counts in hundredths of a second, and viewers take delays of less than two of them for ten. So delays differ
    by one where `fps` asks for it, and above 50 frames a second some are left out; it lasts as long as the frames do.
    Raises ValueError when there are no frames.
    """
    every = max(1, math.ceil(fps / 50))
    images, count = [], 0
    for frame in frames:
        if count % every == 0:
            images.append(_shrink(frame, width))
        count += 1
    if not images:
        raise ValueError(f"no frames for {path}")
    starts = [round(100 * i / fps) for i in (*range(0, count, every), count)]
    delays = [10 * max(2, end - start) for start, end in pairwise(starts)]  # milliseconds
    # One palette and no dithering: what does not move then costs nothing, and does not flicker.
    palette = images[len(images) // 2].quantize(colours, method=Image.Quantize.MEDIANCUT)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    with replacing(path) as temporary:
        indexed[0].save(temporary, save_all=True, append_images=indexed[1:], duration=delays, loop=0, optimize=True)
    return Path(path)


def _page(env: str, planner: str, note: str, tiles: Mapping[str, tuple[int, int, int]]) -> Image.Image:
    """What stays the same in all frames of an episode; `tiles` are left, top and size of pictures, by their names."""
    page = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(page)
    _write(draw, (_LEFT, 16), env, 20, INK)
    _write(draw, (_RIGHT, 20), planner, 16, BLUE, "ra")
    _write(draw, (_LEFT, 42), note, 12, MUTED)
    for name, (left, top, size) in tiles.items():
        _write(draw, (left, top - 18), name, 12, MUTED)
        draw.rectangle((left - 1, top - 1, left + size, top + size), outline=FAINT)
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
