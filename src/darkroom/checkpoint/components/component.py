"""What a component is: one sort of network that models are made of, and all that files say about it, in one record.

A record names its network's class and imports it when one is built, so that looking into files needs no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from darkroom.checkpoint.components.fields import Json
from darkroom.checkpoint.rules import SAME, Block, Rule, generated
from darkroom.errors import ModelError
from darkroom.lazy import imported
from darkroom.networks.roles import Role

if TYPE_CHECKING:
    from torch import nn

Shape = tuple[int, ...]
HUGGING_FACE, ORIGINAL = "huggingface", "original"
HEAD_WIDTH = 64  # Of every attention in Stable Diffusion's networks but the U-Net of version 1.


class Names:
    """The tensors of one network: shapes by name, and which names begin with a block's."""

    def __init__(self, shapes: Mapping[str, Shape]) -> None:
        self.shapes = shapes
        self._starts = {name[:i] for name in shapes for i, sign in enumerate(name) if sign == "."}

    def __contains__(self, start: str) -> bool:
        return start in self._starts or start in self.shapes

    def __getitem__(self, name: str) -> Shape:
        if name not in self.shapes:
            raise ModelError(f"the tensor {name} is missing: the file is incomplete")
        return self.shapes[name]

    def count(self, form: str) -> int:
        """How many blocks there are whose names are `form` with 0, 1, 2 ... in it."""
        number = 0
        while form.format(number) in self:
            number += 1
        return number

    def first(self, end: str) -> Shape | None:
        """The shape of any tensor whose name ends so."""
        return next((shape for name, shape in self.shapes.items() if name.endswith(end)), None)


@dataclass(frozen=True)
class Place:
    """Where single files keep a network: what its names begin with, and whose names they are."""

    prefix: str
    layout: str


@dataclass(frozen=True, eq=False)
class Component:
    """One sort of network that models are made of. Two are the same if they are one object.

    network: its class, as MODULE:NAME; roles: what it can be in a model, the usual one in a single file first; kind:
    what the library calls a file of it alone; label: what people call it.
    library, class_name: whose class it is in a folder, and which; the config.json of one with a projection adds that.
    module: of the library, where it is not at its top.

    marks: what every file of it has and none of another sort, as a layout and the end of a tensor's name; `certain`
    says of a network's tensors whether what bears a mark is what it seems, `turned` of a layout, the prefix and the
    tensors which of its kin the layout is.
    dimensions: from its tensors and their layout, as one of `darkroom.networks.configs`; read, write: the same from
    config.json and back. All raise ModelError for what makes no network. parameters: how many a network of these
    dimensions has.
    layouts: how files of a layout name its blocks; in those that are not among them they are named as we do. place:
    where single files keep it; None where each family has its own. today: the name we give a tensor that an older or
    newer release of the Hugging Face layout names otherwise. computed: tensors that a file may lack, for the network
    knows them, in the names of either layout.
    detail: its dimensions in words.
    """

    network: str
    roles: tuple[Role, ...]
    kind: str
    label: str
    library: str
    class_name: str
    marks: Sequence[tuple[str, str]]
    dimensions: Callable[[Names, str], Any]
    read: Callable[[Json], Any]
    write: Callable[[Any], dict[str, Any]]
    parameters: Callable[[Any], int]
    certain: Callable[[Names], bool] = lambda names: True
    turned: Callable[[str, str, Names], str] = lambda layout, prefix, names: layout
    layouts: Mapping[str, Callable[[Any], Iterable[Block]]] = field(default_factory=dict)
    place: Place | None = None
    today: Callable[[str], str] = lambda name: name
    computed: frozenset[str] = frozenset()
    detail: Callable[[Any], str] = lambda config: ""
    module: str = ""

    def network_class(self) -> type[nn.Module]:
        found: type[nn.Module] = imported(self.network)
        return found

    def build(self, config: Any) -> nn.Module:
        """A network of these dimensions on the meta device, where it costs nothing."""
        from darkroom.networks.unfilled import unfilled

        with unfilled():
            return self.network_class()(config)

    def rules(self, network: nn.Module, layout: str) -> list[Rule]:
        """A rule for every tensor of a network, to the names it has in a layout, without the prefix that a file gives
        the component."""
        names = network.state_dict()
        if (blocks := self.layouts.get(layout)) is None:
            return [Rule(name, (name,), SAME) for name in names]
        return generated(blocks(network.config), names)

    def to_json(self, config: Any) -> dict[str, Any]:
        """The config.json of a network of these dimensions. Raises ModelError where that file has no words for it."""
        name = self.class_for(config)
        named = {"_class_name": name} if self.library == "diffusers" else {"architectures": [name]}
        return named | self.write(config)

    def class_for(self, config: Any) -> str:
        """The class of a network of these dimensions in a folder."""
        projected = getattr(config, "projection_dim", None) is not None
        return f"{self.class_name}WithProjection" if projected else self.class_name

    @property
    def weights_stem(self) -> str:
        """The name, without suffix, of the file of weights in a folder of its own."""
        return "diffusion_pytorch_model" if self.library == "diffusers" else "model"

    def described(self, config: Any) -> str:
        """What it is, in words."""
        return ", ".join(filter(None, (self.label, self.detail(config))))
