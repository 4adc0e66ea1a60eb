"""The programs that write their settings as A1111 does, and what they mean by the same words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

VERSION = re.compile(r"v?(\d+)\.(\d+)")
_FORGE = re.compile(r"f\d|neo|classic")


@dataclass(frozen=True)
class Writer:
    """A program that writes such texts: how it reads prompts, where its noise comes from and how much of it there is,
    whether its samplers lay out their steps otherwise."""

    name: str
    dialect: str = "a1111"
    source: str = "nv"
    full: bool = False
    otherwise: str = ""


_WRITERS = {
    "comfyui": Writer("ComfyUI", "comfy", "comfy", True),
    "fooocus": Writer("Fooocus", "comfy", "comfy", True),
    "stable-diffusion.cpp": Writer("stable-diffusion.cpp"),
    "sd.next": Writer("SD.Next", otherwise="its samplers are diffusers', whose steps lie a little otherwise"),
    "darkroom": Writer("Darkroom", source="cpu"),
}


def writer_of(said: Mapping[str, str]) -> tuple[Writer, str]:
    """The program that wrote a text, and its name with its version."""
    version, app = said.get("Version", ""), said.get("App", "")
    plain = f"{app} {version}".strip().lower()
    for word, writer in _WRITERS.items():
        if word in plain:
            named = version.lower().startswith(writer.name.lower())
            return writer, version if named else f"{writer.name} {version}".strip()
    if "stable-diffusion.cpp" in said.get("SDK", "").lower():
        return _WRITERS["stable-diffusion.cpp"], "stable-diffusion.cpp"
    if _FORGE.match(version):
        return Writer("Forge"), f"Forge {version}"
    if VERSION.match(version):
        return Writer("AUTOMATIC1111"), f"AUTOMATIC1111 {version}"
    if "Civitai resources" in said or "Civitai metadata" in said:
        return Writer("Civitai"), "Civitai"
    return Writer(""), f"{app} {version}".strip() or "AUTOMATIC1111, or what writes like it"
