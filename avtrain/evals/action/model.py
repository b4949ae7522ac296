"""The network that predicts actions."""

from __future__ import annotations

from torch import Tensor, nn

from avtrain.evals.action.protocol import ActionProtocol


class ActionClassifier(nn.Module):
    """Logits of classes, from windows (N, 3, T, H, W). A probe normalises the features to mean 0
    and variance 1, as networks differ in their scale."""

    def __init__(
        self, video: nn.Module, features: int, classes: int, protocol: ActionProtocol
    ) -> None:
        super().__init__()
        self.video = video.requires_grad_(not protocol.probe)
        self.probe = protocol.probe
        scale = [nn.BatchNorm1d(features, affine=False)] if protocol.probe else []
        layers = [*scale, nn.Dropout(protocol.dropout), nn.Linear(features, classes)]
        self.head = nn.Sequential(*layers)

    def train(self, mode: bool = True) -> ActionClassifier:
        """The video network of a probe is never in training mode."""
        super().train(mode)
        if self.probe:
            self.video.eval()
        return self

    def forward(self, windows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.video(windows))
        return logits


def classify_video(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted class of each window (W,) of a video, and of the video (), by the mean of the
    windows' probabilities; from logits (W, classes)."""
    mean = logits.float().softmax(dim=1).mean(dim=0)
    return logits.argmax(dim=1).cpu(), mean.argmax().cpu()
