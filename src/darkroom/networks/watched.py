"""Attention that is looked at while it goes on as it would: where in a picture each token of a text is read.

As in "What the DAAM" (Tang et al. 2022, https://arxiv.org/abs/2210.04885): the share of attention that each place pays
to a token, over all layers in which the picture reads the text.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from darkroom.networks.layers import attend


class Watcher:
    """An `Attend` that changes nothing. `latent`: height and width of the latent that is drawn; `tokens`: how many
    there are of text; `joint`: whether they are in one sequence with the picture's, behind them.

    `total` (tokens, height, width) float32 is the sum over `count` layers and calls; each place's shares come to 1 over
    all tokens of text, or to less where it sees the picture beside them.
    """

    def __init__(self, latent: tuple[int, int], tokens: int, joint: bool) -> None:
        self.latent, self.tokens, self.joint = latent, tokens, joint
        self.total = torch.zeros(tokens, *latent)
        self.count = 0

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, name: str) -> Tensor:
        self.see(q, k, name)
        return attend(q, k, v)

    def see(self, q: Tensor, k: Tensor, name: str, rows: Sequence[int] | None = None) -> None:
        """Take note of what queries (B, heads, N, d) look for among keys (B, heads, M, d) in a layer of that name, in
        some rows or in all."""
        if (size := self._size(q, k, name)) is None:
            return
        h, w = size
        shares = torch.zeros(h * w, self.tokens, device=q.device)
        rows, heads = range(len(q)) if rows is None else rows, q.shape[1]
        for row in rows:
            for head in range(heads):  # One by one: of a large picture all together are gigabytes.
                scores = q[row, head, : h * w].float() @ k[row, head].float().T * q.shape[-1] ** -0.5
                shares += scores.softmax(-1)[:, -self.tokens :]
        maps = (shares / (len(rows) * heads)).T.reshape(1, self.tokens, h, w)
        self.total += F.interpolate(maps, self.latent, mode="bilinear", align_corners=False)[0].cpu()
        self.count += 1

    def _size(self, q: Tensor, k: Tensor, name: str) -> tuple[int, int] | None:
        """Height and width of the picture in a layer that reads the text; None for another layer."""
        queries, keys = q.shape[2], k.shape[2]
        if self.joint:
            side = next((s for s in (2, 1, 4) if self._of(s)[0] * self._of(s)[1] + self.tokens == keys), None)
            return self._of(side) if side and queries == keys else None
        if not name.endswith("attn2") or keys != self.tokens:
            return None
        return next(
            (self._of(2**n) for n in range(8) if self._of(2**n)[0] * self._of(2**n)[1] == queries), None
        )

    def _of(self, stride: int) -> tuple[int, int]:
        height, width = self.latent
        return -(-height // stride), -(-width // stride)
