"""The networks' sizes and properties against the published description."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from avtrain.config import PRESETS, first_stage
from avtrain.networks.models import (
    AudioNet,
    AudioVisual,
    ModelConfig,
    TemporalConv,
    VideoNet,
    calibrate_batch_norm,
)
from avtrain.options import with_options

TINY = ModelConfig(width=4, audio_channels=4, embedding=16)


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def stage_shapes(net: nn.Module, x: torch.Tensor) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    for part in (net.stem, *net.stages):
        part.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    with torch.no_grad():
        net.eval()(x)
    return shapes


def video_parameters(w: int) -> int:
    """Convolutions (no biases), then 2 per channel of every batch normalisation."""
    count = 3 * w * 3 * 7 * 7 + 2 * w
    for cin, cout in ((w, w), (w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w)):
        spatial_first, spatial, temporal = 9 * cin * cout, 9 * cout * cout, 3 * cout * cout
        shortcut = cin * cout if cin != cout else 0
        count += spatial_first + temporal + spatial + temporal + shortcut + 4 * 2 * cout
        count += 2 * (spatial + temporal) + 4 * 2 * cout
    return count


def test_paper_sizes_of_the_video_network() -> None:
    net = VideoNet(64)
    assert parameters(net) == video_parameters(64)
    assert parameters(VideoNet(12)) == video_parameters(12)
    assert stage_shapes(net, torch.zeros(1, 3, 8, 112, 112)) == [
        (64, 8, 56, 56),
        (64, 8, 56, 56),
        (128, 4, 28, 28),
        (256, 2, 14, 14),
        (512, 1, 7, 7),
    ]


def test_paper_sizes_of_the_audio_network() -> None:
    net = AudioNet(4, 64)
    expected = 4 * 64 * 49 + 2 * 64
    for cin, cout in ((64, 64), (64, 128), (128, 256), (256, 512)):
        expected += 9 * cin * cout + 9 * cout * cout + 4 * cout
    assert parameters(net) == expected
    assert stage_shapes(net, torch.zeros(1, 4, 100, 128)) == [
        (64, 50, 64),
        (64, 50, 64),
        (128, 25, 32),
        (256, 13, 16),
        (512, 13, 16),
    ]


def test_paper_sizes_of_transformers_and_heads() -> None:
    model = AudioVisual(PRESETS["paper"]("avsa").model)
    d = 512
    layer = 4 * (d * d + d) + (d * 4 * d + 4 * d) + (4 * d * d + d) + 2 * 2 * d
    assert parameters(model.predict_audio) == parameters(model.predict_video) == 2 * layer
    heads = [
        model.video_head,
        model.audio_head,
        model.predicted_video_head,
        model.predicted_audio_head,
    ]
    assert [(head.in_features, head.out_features) for head in heads] == [(512, 128)] * 4


def test_features_are_global_maxima() -> None:
    net = VideoNet(4).eval()
    last = []
    net.stages[-1].register_forward_hook(lambda _m, _i, out: last.append(out))
    with torch.no_grad():
        features = net(torch.rand(2, 3, 4, 32, 32))
    assert torch.equal(features, last[0].flatten(2).max(dim=2).values)


def test_embed_keeps_clips_and_views_apart() -> None:
    torch.manual_seed(0)
    model = AudioVisual(TINY).eval()
    video, audio = torch.rand(2, 3, 3, 4, 24, 24), torch.rand(2, 3, 4, 20, 32)
    with torch.no_grad():
        v, a = model.embed(video, audio)
        assert v.shape == a.shape == (2, 3, 32)
        torch.testing.assert_close(model.video(video[1]), v[1])
        torch.testing.assert_close(model.audio(audio[:, 2]), a[:, 2])


def test_calibration_averages_the_batches_statistics() -> None:
    torch.manual_seed(0)
    model = AudioVisual(TINY)
    batches = [(torch.rand(2, 2, 3, 4, 24, 24), torch.rand(2, 2, 4, 20, 32)) for _ in range(3)]
    with torch.no_grad():
        means = [
            model.audio.stem[0](audio.flatten(0, 1)).mean(dim=(0, 2, 3)) for _, audio in batches
        ]
    calibrate_batch_norm(model, batches)
    norm = model.audio.stem[1]
    torch.testing.assert_close(norm.running_mean, torch.stack(means).mean(dim=0))
    assert norm.momentum == 0.1


@pytest.mark.parametrize("preset", ["tiny", "paper"])
def test_presets_are_consistent(preset: str) -> None:
    for task in ("avc", "avts", "avsa"):
        config = PRESETS[preset](task)
        config.check()
        assert type(config).from_dict(config.to_dict()) == config


def test_paper_preset_equals_the_paper() -> None:
    avc, avsa = PRESETS["paper"]("avc"), PRESETS["paper"]("avsa")
    assert (avc.batch_size, avc.clip.views, avc.epochs) == (112, 1, 100)
    assert (avsa.batch_size, avsa.clip.views, avsa.epochs) == (28, 4, 100)
    stages = with_options(PRESETS["paper"]("avsa"), curriculum=True, temperature=0.1)
    first = first_stage(stages)
    assert (stages.epochs, stages.curriculum, stages.temperature) == (50, True, 0.1)
    assert first == replace(avc, epochs=50, temperature=0.1)
    for config in (avc, avsa):
        assert (config.clip.frames, config.clip.fps, config.clip.size) == (8, 16.0, 112)
        sound = config.sound
        assert (sound.sample_rate, sound.duration_s) == (24_000, 1.0)
        assert (sound.n_fft, sound.hop_length, sound.mels, sound.top_db) == (512, 240, 128, 100.0)
        assert (config.learning_rate, config.weight_decay) == (1e-4, 1e-5)
        assert config.clips_per_source == 32  # 2 * (73,635 // 4,506)


@pytest.mark.parametrize("kernel", [(3, 1, 1), (3, 7, 7)])
def test_gradients_of_two_frames_do_not_depend_on_what_memory_held(
    kernel: tuple[int, int, int],
) -> None:
    """In bfloat16 on CPUs with AVX-512, where oneDNN reads memory that nothing has written."""
    torch.manual_seed(0)
    conv = TemporalConv(16, 16, kernel, padding=[size // 2 for size in kernel], bias=False)
    conv = conv.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    video = torch.randn(8, 16, 2, 8, 8).contiguous(memory_format=torch.channels_last_3d)

    def gradient(precision: torch.dtype) -> torch.Tensor:
        for size in (2**power for power in range(8, 20)):  # handed out again
            freed = [torch.full((size,), torch.nan) for _ in range(3)]
            del freed
        conv.weight.grad = None
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            output = conv(video)
        output.float().square().mean().backward()
        assert conv.weight.grad is not None
        return conv.weight.grad

    exact = gradient(torch.float32)
    halves = [gradient(torch.bfloat16) for _ in range(10)]
    assert all(torch.equal(half, halves[0]) for half in halves)
    assert (halves[0] - exact).abs().max() < 0.02 * exact.abs().max()
