"""How the files beside this were made, with Ultralytics 8.4: small networks of random numbers, of every kind of layer.

    python tests/detection/data/make.py   # where `ultralytics` can be imported; it is no requirement of the tests

`NAME.pt` is as people's files are, pickled whole; `NAME.npz` what the network says of `picture()`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent


def picture() -> torch.Tensor:
    """What the networks are given, (1, 3, 64, 96) in [0, 1]."""
    levels = np.random.default_rng(1).integers(0, 256, (1, 3, 64, 96), dtype=np.uint8)
    return torch.from_numpy(levels).float() / 255


ZOO = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "C3", [16]],
    [-1, 1, "C2f", [16, True]],
    [-1, 1, "ADown", [16]],
    [-1, 1, "RepNCSPELAN4", [16, 16, 8, 1]],
    [-1, 1, "ELAN1", [16, 16, 8]],
    [-1, 1, "C3k2", [16, True]],  # 7, by 8 pixels
    [-1, 1, "SCDown", [32, 3, 2]],
    [-1, 1, "C2fCIB", [32, True, True]],
    [-1, 1, "C3k2", [32, False, 0.5]],
    [-1, 1, "PSA", [32]],  # 11, by 16
    [-1, 1, "AConv", [64]],
    [-1, 1, "A2C2f", [64, True, 2, True, 1.2]],
    [-1, 1, "Conv", [32, 1, 1]],
    [-1, 1, "C2PSA", [32]],
    [-1, 1, "SPPF", [32, 5]],
    [-1, 1, "SPPELAN", [32, 16]],  # 17, by 32
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 11], 1, "Concat", [1]],
    [-1, 1, "Conv", [32, 3, 1]],
    [7, 1, "CBLinear", [[8, 32]]],
    [17, 1, "CBLinear", [[8, 32]]],
    [[21, 22, 20], 1, "CBFuse", [[1, 1]]],  # 23, by 16
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 7], 1, "Concat", [1]],
    [-1, 1, "C3k2", [16, False]],  # 26, by 8
]
SHORT = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "C2f", [16, True]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "SPPF", [16, 5]],
]
NETWORKS = {
    "detect": (ZOO, [26, 23, 17], "Detect", ["nc"], 2, {"reg_max": 4}),
    "segment": (SHORT, [3, 5], "Segment", ["nc", 8, 16], 1, {"reg_max": 4}),
    "v10": (SHORT, [3, 5], "v10Detect", ["nc"], 2, {}),
    "newest": (SHORT, [3, 5], "Segment26", ["nc", 8, 16], 2, {"reg_max": 1, "end2end": True}),
}


def main() -> None:
    from ultralytics.nn.tasks import DetectionModel, SegmentationModel

    torch.manual_seed(0)
    for name, (layers, grids, head, options, kinds, more) in NETWORKS.items():
        build = SegmentationModel if "Segment" in head else DetectionModel
        said = {"nc": kinds, "depth_multiple": 1.0, "width_multiple": 1.0, **more}
        network = build({**said, "backbone": layers, "head": [[grids, 1, head, options]]}, verbose=False)
        for place, each in network.named_modules():
            if isinstance(each, torch.nn.BatchNorm2d):
                each.running_mean.normal_(0, 0.1)
                each.running_var.uniform_(0.5, 1.5)
                each.weight.data.uniform_(0.7, 1.3)
                each.bias.data.normal_(0, 0.1)
            if isinstance(each, torch.nn.Conv2d) and ".dfl" not in place:
                each.weight.data.normal_(0, (1.6 / each.weight[0].numel()) ** 0.5)
        last = network.model[-1]
        for each in last.parameters():
            if each.ndim == 1:
                each.data.normal_(0, 0.3)
        network = network.half()
        network.names = dict(enumerate(("cat", "dog")[:kinds]))
        network.yaml, network.args = {}, None
        if name == "newest":
            last.proto.semseg = torch.nn.Identity()  # For training alone.
        held = {"epoch": -1, "model": None, "ema": network, "train_args": {"imgsz": 96}}
        # One in torch's old format.
        torch.save(held, HERE / f"{name}.pt", _use_new_zipfile_serialization=name != "v10")
        network = network.float().eval()
        with torch.no_grad():
            made, heard = network(picture())
            last._end2end = False
            rows = last._inference(heard.get("one2many", heard))[0]
        masks = made[1][0] if isinstance(made, tuple) else None
        np.savez_compressed(
            HERE / f"{name}.npz",
            rows=rows.numpy(),
            **({} if masks is None else {"prototypes": masks.numpy()}),
        )


if __name__ == "__main__":
    main()
