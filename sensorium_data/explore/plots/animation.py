"""A trial as a film: the video, and the mean response and running up to each moment."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from sensorium_data.errors import UsageError
from sensorium_data.explore.lookup import require_frames, require_variable
from sensorium_data.explore.plots.parts import TIME_LABEL, finite_mean, name_trial, select_channel
from sensorium_data.files import OutputFile, digest_bytes
from sensorium_data.picture_style import BLUE, VERMILLION, picture_style, say_instead
from sensorium_data.schema import FRAME_RATE_HZ

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["TrialAnimation"]

_DPI, _WIDTH, _HEIGHT = 80, 5.6, 5.2
# Pages with more become slow; of longer trials every second frame is shown, or every third, at the same speed.
_MOST_FRAMES = 160
_JPEG_QUALITY = 80
_ENDINGS = (".html", ".mp4", ".gif")
# Stands at the end of each file, before the digest of the bytes above; players ignore it there.
_SEAL = b"sensorium-pipeline trial animation "
_DIGEST_SIZE_BYTES = 64


@dataclass(frozen=True)
class TrialAnimation:
    """A trial as a film that notebooks show, and that can be saved. Made by ``session.sensorium.animate(trial)``.

    In a notebook it is a page with a player of its own that needs nothing else: no server, no ffmpeg.

    Parameters
    ----------
    block : xarray.Dataset
        The trial, cut to its valid frames.
    """

    block: xr.Dataset = field(repr=False)
    _frames: list[str] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_frames(self.block)
        require_variable(self.block, "videos")

    def __repr__(self) -> str:
        shown = len(self.positions)
        return f"<animation of {name_trial(self.block)}: {shown} frames; save it with .save('trial.html')>"

    @property
    def step(self) -> int:
        """Every so many frames of the video one is shown."""
        return -(-self.block.sizes["time"] // _MOST_FRAMES)

    @property
    def positions(self) -> np.ndarray:
        """The frames of the video that are shown."""
        return np.arange(0, self.block.sizes["time"], self.step)

    @property
    def interval_ms(self) -> float:
        """How long each is shown."""
        return 1000.0 * self.step / FRAME_RATE_HZ

    def _repr_html_(self) -> str:
        return self._write_page()

    def save(self, path: str | Path) -> Path:
        """Write the film into a file, which appears whole or not at all.

        Parameters
        ----------
        path : str or Path
            Ends in ``.html`` (a page with a player), ``.gif``, or ``.mp4``, which needs the program ffmpeg. An earlier
            film there is replaced, any other file is not.

        Returns
        -------
        Path
            The file.

        Raises
        ------
        UsageError
            If the name ends otherwise, something else lies there, or ffmpeg is missing or fails.
        """
        path = Path(path).expanduser()
        kind = OutputFile("an animation", _ENDINGS, _is_animation)
        kind.require_writable(path)
        match path.suffix.lower():
            case ".mp4":
                data = self._encode_mp4(path)
            case ".gif":
                data = self._encode_gif()
            case _:
                page = (
                    f'<!DOCTYPE html><html><head><meta charset="utf-8"></head><body>{self._repr_html_()}</body></html>'
                )
                data = page.encode()
        with kind.replace(path) as partial:
            partial.write_bytes(_seal(data, path.suffix.lower()))
        return path

    def _write_page(self) -> str:
        """Return the frames as JPEG in a page's text, and a player of a few lines."""
        frames = self._encode_frames()
        # Another one each time: a notebook may show a film in several cells, each with a player of its own.
        name = f"sensorium-{uuid.uuid4().hex}"
        return _PLAYER.format(
            name=name,
            width=int(_WIDTH * _DPI),
            last=len(frames) - 1,
            first=frames[0],
            frames=json.dumps(frames),
            interval=f"{self.interval_ms:.1f}",
        )

    def _encode_frames(self) -> list[str]:
        """Return the frames as JPEG in Base64; they are drawn once."""
        if not self._frames:
            self._frames.extend([_encode_jpeg(image) for image in self._render()])
        return self._frames

    def _encode_gif(self) -> bytes:
        first, *others = (image.quantize(64) for image in self._render())
        buffer = io.BytesIO()
        # A GIF counts in hundredths of a second.
        first.save(
            buffer, "GIF", save_all=True, append_images=others, loop=0, duration=round(self.interval_ms / 10) * 10
        )
        return buffer.getvalue()

    def _encode_mp4(self, path: Path) -> bytes:
        program = shutil.which("ffmpeg")
        if program is None:
            raise UsageError(
                "an mp4 needs the program ffmpeg", path=path, found="no ffmpeg on the path",
                remedy="install it, or save as .html or .gif",
            )  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "film.mp4")
            size, rate = f"{int(_WIDTH * _DPI)}x{int(_HEIGHT * _DPI)}", f"{1000 / self.interval_ms:.4f}"
            command = [
                program, "-loglevel", "error", "-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", size,
                "-framerate", rate, "-i", "-", "-pix_fmt", "yuv420p", "-movflags", "+faststart", str(target),
            ]  # fmt: skip
            # Frames and messages go through files: a full pipe would stop one side or the other.
            with tempfile.TemporaryFile() as frames:
                for image in self._render():
                    frames.write(image.tobytes())
                frames.seek(0)
                process = subprocess.run(command, stdin=frames, capture_output=True, check=False)  # noqa: S603
            said = process.stderr[:2000].decode(errors="replace").strip()
            if process.returncode or not target.exists():
                raise UsageError(
                    "ffmpeg failed", path=path, found=said or f"exit status {process.returncode}",
                    remedy="save as .html or .gif",
                )  # fmt: skip
            return target.read_bytes()

    def _render(self) -> Iterator[Image]:
        """Yield the pictures one after the other; what does not change is drawn once."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from PIL import Image

        block = self.block
        seconds = block.time.values
        with picture_style():
            # A figure of its own canvas: pyplot would show it too.
            figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=_DPI, layout="constrained")
            # Parts of matplotlib's canvas are untyped.
            canvas: Any = FigureCanvasAgg(figure)
            screen, response, running = figure.subplots(3, 1, height_ratios=(3.2, 1, 1)).tolist()
            figure.suptitle(name_trial(block).replace(", movie", ",\nmovie"), fontsize=9)
            shown = screen.imshow(
                np.zeros(block.videos.shape[1:]),
                cmap="gray",
                vmin=0,
                vmax=255,
                interpolation="nearest",
                origin="upper",
                aspect="equal",
                animated=True,
            )
            screen.set(xticks=[], yticks=[])
            lines = [
                (axes, *_prepare_trace(axes, seconds, values, color))
                for axes, values, color in (
                    (response, self._mean_response(), VERMILLION),
                    (running, _running(block), BLUE),
                )
            ]
            response.set_ylabel("mean\nresponse\n(a.u.)")
            running.set_ylabel("running\nspeed (a.u.)")
            running.set_xlabel(TIME_LABEL)
            canvas.draw()
            background = canvas.copy_from_bbox(figure.bbox)
            # A trial's video is one chunk: frame by frame it would be read as often.
            frames = block.videos.values
            for position in self.positions:
                canvas.restore_region(background)
                shown.set_data(frames[position])
                screen.draw_artist(shown)
                for axes, line, cursor, values in lines:
                    if line is not None:
                        line.set_data(seconds[: position + 1], values[: position + 1])
                        axes.draw_artist(line)
                    cursor.set_xdata([seconds[position]] * 2)
                    axes.draw_artist(cursor)
                yield Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy())

    def _mean_response(self) -> np.ndarray | None:
        block = self.block
        if "responses" not in block or bool(block.responses_withheld) or block.sizes.get("neuron", 0) == 0:
            return None
        return finite_mean(block.responses.transpose("neuron", "time").values)


def _encode_jpeg(image: Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def _running(block: xr.Dataset) -> np.ndarray | None:
    values = select_channel(block, "running_speed")
    return None if values is None else np.asarray(values.values, float)


def _prepare_trace(axes: Any, seconds: np.ndarray, values: np.ndarray | None, color: str) -> tuple[Any, Any, Any]:
    """Draw a whole trace in gray, and return the line that grows over it, the mark of now, and the values."""
    axes.set_xlim(seconds[0], seconds[-1] if len(seconds) > 1 else seconds[0] + 1)
    line = None
    if values is None:
        say_instead(axes, "not there")
    else:
        axes.plot(seconds, values, color="0.8", linewidth=1.0)
        (line,) = axes.plot([], [], color=color, linewidth=1.4, animated=True)
    cursor = axes.axvline(seconds[0], color="black", linewidth=0.8, animated=True)
    return line, cursor, values


def _seal(data: bytes, ending: str) -> bytes:
    text = _SEAL + digest_bytes(data).encode()
    if ending == ".html":
        return data + b"<!-- " + text + b" -->"
    if ending == ".mp4":
        # A box that players skip: its size, its kind, and what is in it.
        return data + (8 + len(text)).to_bytes(4, "big") + b"free" + text
    return data + text


def _is_animation(data: bytes) -> bool:
    begin = data.rfind(_SEAL)
    digest = data[begin + len(_SEAL) :][:_DIGEST_SIZE_BYTES].decode(errors="replace")
    # Before the seal stand the opening of a comment, the head of a box, or nothing.
    return begin > 0 and any(digest_bytes(data[: begin - n]) == digest for n in (0, 5, 8))


_PLAYER = """<div id="{name}" style="width:{width}px;max-width:100%">
<img alt="trial" style="width:100%" src="data:image/jpeg;base64,{first}">
<div style="display:flex;gap:8px"><button type="button">pause</button>
<input type="range" min="0" max="{last}" value="0" style="flex:1" aria-label="frame"></div></div>
<script>(function(){{
const root=document.getElementById("{name}"),image=root.querySelector("img"),button=root.querySelector("button"),
slider=root.querySelector("input"),frames={frames};
let timer=null;
function show(){{image.src="data:image/jpeg;base64,"+frames[+slider.value];}}
function play(){{button.textContent="pause";timer=setInterval(function(){{
if(!document.contains(root)){{clearInterval(timer);return;}}
slider.value=(+slider.value+1)%frames.length;show();}},{interval});}}
function pause(){{button.textContent="play";clearInterval(timer);timer=null;}}
button.onclick=function(){{timer===null?play():pause();}};
slider.oninput=function(){{if(timer!==null)pause();show();}};
play();
}})();</script>"""
