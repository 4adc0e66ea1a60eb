"""One guided step of SD 1.5's U-Net (two rows) beside diffusers, with the same random weights."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

from darkroom.engine import keep_freed_memory, place
from darkroom.networks import Conditioning, UNet, UNetConfig
from interleave import arguments, interleave, report


def main() -> None:
    parser = arguments(__doc__, runs=5)
    parser.add_argument("--size", type=int, default=512, help="pixels along each side (default: 512)")
    parser.add_argument("--device", help="default: the best of this machine")
    parser.add_argument("--skip-float32", action="store_true", help="leave out diffusers' default precision")
    args = parser.parse_args()
    placement = place(args.device)
    torch.manual_seed(0)
    peer = UNet2DConditionModel(cross_attention_dim=768).eval().to(placement.device)
    with torch.device("meta"):
        network = UNet(UNetConfig()).eval()
    network.load_state_dict(
        {key: value.to(placement.dtype) for key, value in peer.state_dict().items()}, assign=True
    )
    network.to(memory_format=torch.channels_last)

    side = args.size // 8
    x, time = torch.randn(2, 4, side, side), torch.tensor([500.0, 500.0])
    context = torch.randn(2, 77, 768)
    x, time, context = (tensor.to(placement.device) for tensor in (x, time, context))

    def ours() -> None:
        packed = x.to(placement.dtype, memory_format=torch.channels_last)
        network(packed, time, Conditioning(context.to(placement.dtype)))
        _wait(placement.device)

    def theirs(dtype: torch.dtype) -> None:
        peer(x.to(dtype), time, context.to(dtype), return_dict=False)
        _wait(placement.device)

    name = f"Darkroom {placement.precision}"
    with torch.inference_mode():
        if not args.skip_float32:
            # Before Darkroom's tuning of the allocator: what a diffusers user has.
            seconds = interleave(
                {"diffusers float32 (its default)": lambda: theirs(torch.float32)}, args.runs
            )
        else:
            seconds = {}
        peer.to(placement.dtype)
        contenders = {f"diffusers {placement.precision}": lambda: theirs(placement.dtype), name: ours}
        if placement.device.type == "cpu":
            keep_freed_memory()
        seconds |= interleave(contenders, args.runs)
    report(
        f"U-Net of SD 1.5, {args.size}x{args.size}, two rows, {placement.device}", seconds, name, args.json
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
