"""Statistics against published numbers; results, plots, reports and videos read back."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import pytest
from forearm.evaluation.plots import energy_landscape, loss_curves, success_against_cost
from forearm.evaluation.report import write_report
from forearm.evaluation.results import Row, pool, read_results, table, write_results
from forearm.evaluation.statistics import compare_paired, two_way_interval, wilson
from forearm.evaluation.video import EpisodeFilm, FilmFrame, write_gif, write_mp4
from forearm.files import replacing, write_atomic, write_json
from PIL import Image

REQUIRED = {"env", "obs", "planner", "episodes", "successes", "success", "wilson", "reached", "seed"} | {
    "plan_ms_p50",
    "plan_ms_p95",
    "evaluations",
}


def row(planner: str = "cem", seed: int = 0, successes: int = 8, **more: Any) -> Row:
    """Ten episodes, of which the first `successes` ended at the goal and one more passed by it."""
    episodes = np.arange(10)
    plan_ms = np.linspace(10, 30, 101) if planner not in ("random", "zero") else []
    return Row.from_episodes(
        env="push",
        obs="pixels",
        planner=planner,
        seed=seed,
        success=episodes < successes,
        reached=episodes < successes + 1,
        plan_ms=plan_ms,
        **more,
    )


ROWS = [
    row("random", successes=0, kind="floor"),
    *(row("cem", seed, successes, evaluations=640) for seed, successes in enumerate((8, 9, 9))),
    row("oracle", successes=9, evaluations=640, kind="ceiling", note="<plans & acts in the simulator>"),
]


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_gives_the_published_intervals(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


def test_wilson_at_the_edges() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 7)[0] == 0.0 and wilson(7, 7)[1] == 1.0
    assert wilson(5, 10, 0.99)[0] < wilson(5, 10)[0] < 0.5
    for bad in (lambda: wilson(3, 2), lambda: wilson(-1, 2), lambda: wilson(1, 2, 1.0)):
        with pytest.raises(ValueError, match="must be"):
            bad()


@pytest.mark.parametrize(("first_only", "second_only"), [(1, 9), (9, 1), (0, 6), (4, 4), (0, 0)])
def test_mcnemar_counts_the_coin_tosses_as_extreme(first_only: int, second_only: int) -> None:
    tosses = first_only + second_only
    gap = abs(first_only - second_only)
    extreme = sum(abs(2 * sum(toss) - tosses) >= gap for toss in product((0, 1), repeat=tosses))
    both, neither = 3, 2
    first = [1] * both + [1] * first_only + [0] * second_only + [0] * neither
    second = [1] * both + [0] * first_only + [1] * second_only + [0] * neither
    paired = compare_paired(first, second)
    assert paired.p_value == pytest.approx(extreme / 2**tosses)
    assert (paired.both, paired.first_only, paired.second_only, paired.neither) == (3, first_only, second_only, 2)


def test_mcnemar_needs_the_same_goals() -> None:
    with pytest.raises(ValueError, match="one success a goal"):
        compare_paired([True, False], [True])


def test_a_row_summarises_its_episodes() -> None:
    one = row(final_distance_cm=np.arange(10.0), drops=[True] * 2 + [False] * 8)
    assert (one.episodes, one.successes, one.success, one.reached) == (10, 8, 0.8, 0.9)
    assert one.wilson == wilson(8, 10)
    assert (one.plan_ms_p50, one.plan_ms_p95) == pytest.approx((20, 29))
    assert (one.final_distance_cm, one.drops) == (4.5, 2)
    with pytest.raises(ValueError, match="E > 0"):
        Row.from_episodes(env="push", obs="state", planner="cem", seed=0, success=[], reached=[])


def test_results_round_trip(tmp_path: Path) -> None:
    path = write_results(tmp_path / "deep" / "results.json", ROWS, "f" * 64, machine="2 cores")
    raw = json.loads(path.read_text())
    assert (raw["schema"], raw["manifest"], raw["machine"]) == (1, "f" * 64, "2 cores")
    assert all(set(line) >= REQUIRED for line in raw["rows"])
    results = read_results(path)
    assert (results.manifest, results.rows, results.more) == ("f" * 64, ROWS, {"machine": "2 cores"})
    assert [file.name for file in path.parent.iterdir()] == ["results.json"]
    with pytest.raises(ValueError, match="already have the keys"):
        write_results(path, ROWS, "f" * 64, schema=2)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 9}', '{"schema": 1, "manifest": "", "rows": [{}]}'])
def test_what_is_no_results_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"results\.json is not a results file"):
        read_results(path)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "value.json", b"old")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"loss": float("nan")})
    with pytest.raises(RuntimeError, match="stop"), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("stop")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_seeds_are_pooled() -> None:
    floor, cem, ceiling = pool(ROWS)
    assert (floor, ceiling) == (ROWS[0], ROWS[-1])
    assert (cem.episodes, cem.successes, cem.seed, cem.seeds) == (30, 26, None, (0, 1, 2))
    assert cem.wilson == two_way_interval(np.arange(10) < np.array([[8], [9], [9]]))
    assert cem.reached == pytest.approx((0.9 + 1.0 + 1.0) / 3)
    assert (cem.plan_ms_p50, cem.evaluations) == (pytest.approx(20), 640)


def test_models_are_pooled_beside_their_own_rows() -> None:
    several = [row("cem", seed, 9, model=f"seed {model}") for model in (0, 1) for seed in (0, 1)]
    pooled = pool([row("zero", successes=0, kind="floor"), *several])
    assert [(one.model, one.episodes) for one in pooled] == [(None, 10), ("seed 0", 20), ("seed 1", 20), ("all 2", 40)]
    lines = [line.split("|")[1].strip() for line in table(pooled).splitlines()]
    assert (lines[0], lines[2:]) == ("model", ["-", "seed 0", "seed 1", "all 2"])


def test_the_table_is_aligned_and_ordered() -> None:
    lines = table(pool(ROWS[::-1])).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["random (floor)", "cem", "oracle (ceiling)"]
    assert "86.7 [57.4, 96.9]" in lines[3] and "10 x 3" in lines[3] and "20.0 / 29.0" in lines[3]
    assert table(ROWS).splitlines()[0].split("|")[1].strip() == "seed"


def test_plots_are_written(tmp_path: Path) -> None:
    log = [{"step": step, "loss": 1 / (step + 1), "effective_rank": 3.0, "val_loss": None} for step in range(5)]
    paths = [
        success_against_cost(pool(ROWS), tmp_path / "success.png"),
        success_against_cost([], tmp_path / "nothing.png"),
        loss_curves(log, tmp_path / "loss.png"),
    ]
    for path in paths:
        with Image.open(path) as image:
            assert image.width > 1000
    before = paths[0].read_bytes()
    assert success_against_cost(pool(ROWS), paths[0]).read_bytes() == before


def test_an_energy_landscape_shows_each_energy_in_its_place(tmp_path: Path) -> None:
    energies = np.ones((40, 40))
    energies[20:, :20], energies[:20, 20:] = 0.0, np.inf  # low: right and down; blank: left and up
    path = energy_landscape(energies, (-1, 0), (1, 2), tmp_path / "energy.png", names=("dx", "dy"), plan=(-0.5, 0.5))
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB"), int)
    low, high = ((np.abs(pixels - colour) < 8).all(-1) for colour in ((0, 34, 78), (254, 232, 56)))
    (low_row, low_column), (row, column) = (np.median(np.argwhere(colour), axis=0) for colour in (low, high))
    assert low_row > row + 20 and low_column > column + 20
    assert high.sum() == pytest.approx(2 * low.sum(), rel=0.1)  # two quarters and one: the fourth is left blank
    again = energy_landscape(energies, (-1, 0), (1, 2), tmp_path / "again.png", names=("dx", "dy"), plan=(-0.5, 0.5))
    assert again.read_bytes() == path.read_bytes()
    for wrong in (energies[:4], energies[0], np.full((3, 3), np.nan), np.zeros((1, 1))):
        with pytest.raises(ValueError, match=r"energies must be \(n, n\) with n > 1"):
            energy_landscape(wrong, (-1, 0), (1, 2), tmp_path / "no.png")
    assert not (tmp_path / "no.png").exists()


class Page(HTMLParser):
    """Collects what a page would load, and whether its tags close in order."""

    VOID = frozenset(("meta", "img", "br"))

    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_report_is_self_contained(tmp_path: Path) -> None:
    video = write_mp4(tmp_path / "arm <1>.mp4", [np.zeros((32, 32, 3), np.uint8)] * 3, fps=10)
    plot = loss_curves([{"step": 0, "loss": 1.0}], tmp_path / "loss.png")
    path = write_report(
        tmp_path / "report.html",
        "Push & <b>pull</b>",
        ROWS,
        images={"a file": plot, "its bytes": plot.read_bytes()},
        videos=[video],
        facts={"machine": "<script>alert(1)</script>"},
        sections={"Note": "one\n\ntwo"},
        command="forearm bench env=push",
        manifest="f" * 64,
    )
    text = path.read_text()
    page = Page()
    page.feed(text)
    page.close()
    assert not page.open and not page.tags & {"script", "link", "iframe"}
    assert len(page.sources) == 3 and all(source.startswith("data:") for source in page.sources)
    assert not re.search(r"https?://|url\(|@import", text)
    for said in ("held the goal at the end of 26 of 30 episodes", "f" * 64, "forearm bench env=push", "prefers-color"):
        assert said in text
    with pytest.raises(ValueError, match="neither PNG"):
        write_report(path, "x", ROWS, images={"bad": b"<svg>"})
    assert path.read_text() == text


def film(steps: int = 6) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    scene = generator.integers(0, 256, (240, 240, 3), np.uint8)
    goal = generator.integers(0, 256, (64, 64, 3), np.uint8)
    energies = [None, float("nan"), 3.0, 2.0, 1.0, 0.0]
    episode = EpisodeFilm("push from pixels", "cem", steps, energies=energies, note="goal 1 of 8")
    return [
        episode.compose(FilmFrame(scene, goal, goal if step else None, step, step == 5, plan_ms=20, distance_cm=3))
        for step in range(steps)
    ]


def test_frames_show_the_scene_and_the_goal() -> None:
    frames = film()
    assert all(frame.shape == (480, 800, 3) and frame.dtype == np.uint8 for frame in frames)
    green = (frames[-1][:, 480:] == (0, 158, 115)).all(-1)
    assert green.any() and not (frames[0][:, 480:] == (0, 158, 115)).all(-1).any()


@pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")  # imageio's reader leaves a pipe to the collector
def test_the_video_reads_back(tmp_path: Path) -> None:
    path = write_mp4(tmp_path / "arm.mp4", iter(film()), fps=12)
    with imageio.get_reader(path) as reader:
        data: Any = reader
        meta = data.get_meta_data()
        frames = [np.asarray(frame) for frame in data]
    assert (meta["size"], meta["fps"], meta["codec"]) == ((800, 480), 12, "h264")
    assert meta["pix_fmt"].startswith("yuv420p") and len(frames) == 6
    odd = write_mp4(path, [np.zeros((33, 47, 3), np.uint8)] * 2, fps=5)
    with imageio.get_reader(odd) as reader:
        data = reader
        assert data.get_meta_data()["size"] == (46, 32)
    assert [file.name for file in tmp_path.iterdir()] == ["arm.mp4"]


def test_a_failed_video_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_atomic(tmp_path / "arm.mp4", b"old")
    with pytest.raises(ValueError, match="no frames"):
        write_mp4(path, [], fps=10)
    with pytest.raises(ValueError, match="one size"):
        write_mp4(path, [np.zeros((32, 32, 3), np.uint8), np.zeros((32, 34, 3), np.uint8)], fps=10)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_a_gif_is_as_wide_as_it_is_asked_for(tmp_path: Path) -> None:
    path = write_gif(tmp_path / "arm.gif", film(), fps=10, width=200)
    with Image.open(path) as image:
        assert image.size == (200, 120) and getattr(image, "n_frames", 1) == 6
