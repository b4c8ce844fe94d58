"""The benchmark of linear experts: a field beside video codecs, tables of known lines."""

from __future__ import annotations

import pytest

from benchmarks import experts
from benchmarks.forms import UnreachableError
from tests.support.fields import smooth

LINE = {
    "benchmark": "experts", "field": "a", "shape": [100, 100, 100], "dtype": "<u2", "ratio": 100.0,
    "codec": "moec_zarr", "settings": {"effort": "fast"}, "version": "1", "psnr_with": 40.5,
    "psnr_without": 40.0, "experts_with": 30, "encode_cpu_with": 1.5, "encode_cpu_without": 1.0,
    "decode_cpu_with": 0.3, "decode_cpu_without": 0.2,
}  # fmt: skip


def test_video_stands_beside_integers_alone() -> None:
    video = {"psnr_x265": 41.0, "encode_cpu_x265": 0.25, "reason_SVT-AV1": "takes at least 9 bytes"}
    lines = [LINE | video, LINE | {"field": "b", "dtype": "<f4"}]
    text = experts.beside_video(lines, {"a": "A"})
    assert "| A | 100x | 40.50 (1.50) | 40.00 (1.00) | 41.00 (0.25) | - |" in text
    assert "| b |" not in text
    assert "| A | +0.50 (30 B) |" in experts.table(lines, {"a": "A"})


def test_a_video_codec_keeps_the_bytes_or_says_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    array = smooth((4, 16, 16), "u2", scale=1000)
    given = []

    def video(codec: str, array: object, budget: int) -> tuple[dict[str, float], object]:
        given.append(budget)
        if budget < 100:
            raise UnreachableError("takes at least 100 bytes")
        return {"bytes": budget, "encode_cpu": 1.0, "decode_cpu": 0.5}, array + 1  # type: ignore[operator]

    monkeypatch.setattr(experts, "measure_peer", video)
    assert experts._video(array, 8.0, "x265")["bytes_x265"] == array.nbytes // 8
    assert experts._video(array, 80.0, "x265") == {"reason_x265": "takes at least 100 bytes"}
