"""A detector in a file: the oracle of the drawn world, in the form of people's."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from darkroom.oracle.oracle import Oracle, cell_centres
from darkroom.world.scene import KINDS

SIDE = 128


class AsYolo(nn.Module):
    """(1, 3, side, side) in [0, 1] to what a detector of the YOLO family says: (1, 4 + kinds, cells)."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        maps = self.network(2 * x - 1)
        across, down = (
            cell_centres(maps.kinds.shape[3])[None, None],
            cell_centres(maps.kinds.shape[2])[None, :, None],
        )
        left, top, right, bottom = maps.edges.unbind(1)
        boxes = torch.stack(
            [across + (right - left) / 2, down + (bottom - top) / 2, left + right, top + bottom], dim=1
        )
        return torch.cat([SIDE * boxes, maps.kinds.sigmoid()], dim=1).flatten(2)


@pytest.fixture(scope="session")
def world_file(tmp_path_factory):
    """An ONNX file that finds the drawn world's things."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("detectors") / "world.onnx"
    network = AsYolo(Oracle.load().network.to(memory_format=torch.contiguous_format)).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network, (torch.rand(1, 3, SIDE, SIDE),), path, dynamo=False, input_names=["images"]
        )
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {"names": str(dict(enumerate(KINDS))), "imgsz": f"[{SIDE}, {SIDE}]"})
    onnx.save(model, path)
    return path
