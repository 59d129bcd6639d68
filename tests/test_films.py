"""Films last what they say, are whole or not there, and cost nothing that was measured."""

import errno
import gc
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest
from forearm.cli import main
from forearm.evaluation import measure
from forearm.evaluation.results import read_results
from forearm.evaluation.video import BLUE, EpisodeFilm, FilmFrame, write_gif, write_mp4
from PIL import Image, ImageColor

FRAMES = [np.full((32, 48, 3), 4 * i, np.uint8) for i in range(60)]


@pytest.fixture
def collected() -> Iterator[None]:
    """imageio leaves the pipe to an ffmpeg that died to the collector: it comes before the next test."""
    yield
    gc.collect()


@pytest.mark.parametrize("fps", [1, 7, 10, 24, 30, 50, 60, 75, 100, 240, 1 / 0.7])
def test_a_gif_lasts_as_long_as_its_frames(tmp_path: Path, fps: float) -> None:
    with Image.open(write_gif(tmp_path / "arm.gif", FRAMES, fps, width=48)) as image:
        delays = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            delays.append(image.info["duration"])
    assert sum(delays) == pytest.approx(1000 * 60 / fps, rel=0.01, abs=10)
    assert min(delays) >= 20, "viewers take shorter delays for 100 ms"


def test_frames_that_look_the_same_last_as_long(tmp_path: Path) -> None:
    frames = [FRAMES[i // 20] for i in range(60)]
    with Image.open(write_gif(tmp_path / "arm.gif", frames, 30, width=48)) as image:
        delays = []
        for i in range(getattr(image, "n_frames", 1)):
            image.seek(i)
            delays.append(image.info["duration"])
    assert sum(delays) == 2000


@pytest.mark.parametrize("fps", [0.5, 1 / 0.7, 10, 1 / 0.015, 240])
def test_an_mp4_lasts_as_long_as_its_frames(tmp_path: Path, fps: float) -> None:
    count, seconds = imageio_ffmpeg.count_frames_and_secs(write_mp4(tmp_path / "arm.mp4", FRAMES, fps))
    assert count == 60 and seconds == pytest.approx(60 / fps, rel=0.01, abs=0.02)


def ffmpeg_on_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on ffmpeg loses the end of each film that it writes, as when the disk is full."""
    monkeypatch.delenv("IMAGEIO_FFMPEG_EXE", raising=False)
    script = folder / "ffmpeg"
    real = imageio_ffmpeg.get_ffmpeg_exe()
    losing = 'case "$last" in *.mp4) head -c 1000 "$last" > "$last.part"; mv "$last.part" "$last";; esac'
    script.write_text(f'#!/bin/sh\n"{real}" "$@"\nfor last; do :; done\n{losing}\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(script))


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for ffmpeg")
def test_a_film_that_cannot_be_read_back_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    ffmpeg_on_a_full_disk(tmp_path / "bin", monkeypatch)
    film = tmp_path / "arm.mp4"
    film.write_bytes(b"old")
    with pytest.raises(OSError, match="of 60 frames that were written 0 can be read back"):
        write_mp4(film, FRAMES, 10)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    noise = np.random.default_rng(0).integers(0, 256, (480, 800, 3), np.uint8)  # more than a pipe holds
    with pytest.raises(OSError, match=r"ffmpeg stopped, .*Broken pipe$"):
        write_mp4(film, [noise] * 3, 10)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "nowhere"))
    with pytest.raises(OSError, match="nowhere"):
        write_mp4(film, FRAMES, 10)
    assert film.read_bytes() == b"old" and {path.name for path in tmp_path.iterdir()} == {"bin", "arm.mp4"}


SMALL = ("env=push", "obs=state", "episodes=1", "planner.samples=8", "planner.iterations=2", "threads=1", "device=cpu")


@pytest.mark.usefixtures("collected")
@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")
@pytest.mark.skipif(os.name != "posix", reason="a shell script stands for ffmpeg")
def test_a_film_that_fails_costs_nothing_but_the_film(
    state_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = f"checkpoint={state_run / 'train' / 'checkpoint'}"

    def no_room(*_: object) -> Path:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(measure, "success_against_cost", no_room)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/bin/false")
    bench = ["bench", *SMALL, checkpoint, "planners=[cem]", "planner_seeds=[0]", "video_episodes=1"]
    assert main([*bench, f"out={tmp_path / 'bench'}"]) == 0
    said = capsys.readouterr().out
    assert "no film: ffmpeg stopped" in said and "no plot: [Errno 28] No space left on device" in said
    assert "| cem " in said and f"report: {tmp_path / 'bench' / 'report.html'}" in said
    assert "held the goal at the end of" in (tmp_path / "bench" / "report.html").read_text()
    assert len(read_results(tmp_path / "bench" / "results.json").rows) == 1

    ffmpeg_on_a_full_disk(tmp_path, monkeypatch)
    assert main(["demo", *SMALL, checkpoint, f"out={tmp_path / 'demo'}"]) == 0
    said = capsys.readouterr().out
    assert "no film: of " in said and "video:" not in said and "| cem " in said
    assert sorted(path.name for path in (tmp_path / "demo").iterdir()) == ["config.yaml", "results.json"]


def column_of_blue(page: np.ndarray) -> tuple[float, float]:
    """Highest and lowest row of what is blue in the box of the curve."""
    box = page[268:367, 500:730]
    rows = np.nonzero((box == ImageColor.getrgb(BLUE)).all(-1))[0]
    return rows.min(), rows.max()


def page(energies: list[float], step: int, seen: bool) -> np.ndarray:
    grey = np.full((64, 64, 3), 200, np.uint8)
    film = EpisodeFilm("push", "cem", len(energies), energies=energies, sees_pixels=seen)
    return film.compose(FilmFrame(grey, grey, grey if seen else None, step, False))


def test_energies_are_drawn_on_a_logarithmic_axis() -> None:
    middle = [10.0**-i for i in range(5)]  # decades are as far apart as each other
    heights = [column_of_blue(page(middle, step, True))[1] for step in (1, 2, 3, 4, 5)]
    assert np.diff(heights).min() > 15 and np.ptp(np.diff(heights)) <= 2
    signed = [1.0, 0.5, 0.0, -0.5, -1.0]  # which have no logarithm
    heights = [column_of_blue(page(signed, step, True))[1] for step in (1, 2, 3, 4, 5)]
    assert np.diff(heights).min() > 15 and np.ptp(np.diff(heights)) <= 2


def test_what_a_model_sees_has_a_box_only_where_it_sees() -> None:
    energies = [1.0, 0.5]
    seen, unseen = page(energies, 1, True)[84:216, 648:780], page(energies, 1, False)[84:216, 660:780]
    assert (seen == 200).mean() > 0.95 and (unseen == 255).all()
    assert (page(energies, 1, False)[90:230, 505:650] == 200).all(), "the goal"
