"""What the text encoders make of weighted and long prompts, against A1111's, ComfyUI's and compel's rules.

The references here work on transformers' CLIP with the same random weights, and cut and weigh texts by themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor

from darkroom.checkpoint.components import CLIP_TEXT
from darkroom.errors import InvalidRequest
from darkroom.language import dialect_of
from darkroom.networks import CLIPText
from darkroom.prompt import ClipText, Prompt, TextConditioner, TextUse, Tokenizer
from darkroom.prompt.vocabulary import Embedding, Vocabulary

LONG = "a very detailed painting of a red boat, " * 9 + "calm sea. " + "night sky " * 40
PROMPTS = [
    "a (red:1.5) boat on a [calm] sea",
    "((storm)), (boat:0.4) and some trees",
    "(" + LONG + ":1.2) (moon:0.7)",
    "one BREAK (two:1.4)",
    "plain words alone",
    "",
]


def close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= 1e-5 * max(1.0, float(theirs.abs().max()))


def build(width: int, seed: int, pad: str) -> tuple[ClipText, Any]:
    torch.manual_seed(seed)
    config = transformers.CLIPTextConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=4,
        num_attention_heads=2,
        projection_dim=width,
        bos_token_id=49406,
        eos_token_id=49407,
    )
    peer = transformers.CLIPTextModelWithProjection(config).eval()
    for name, value in peer.named_parameters():
        if "norm" in name:  # As made, states have a mean of 0, which no emphasis can put back.
            torch.nn.init.normal_(value, 0.5, 0.5)
    ours = CLIPText(CLIP_TEXT.read({**config.to_dict(), "architectures": ["CLIPTextModelWithProjection"]}))
    state = {
        key if key.startswith(("text_model", "text_projection")) else f"text_model.{key}": value
        for key, value in peer.state_dict().items()
        if not key.endswith("position_ids")
    }
    ours.load_state_dict(state, strict=True)
    return ClipText(Tokenizer.clip(pad), ours.eval(), TextUse(pad=pad, pooled=True)), peer


@pytest.fixture(scope="module")
def pair() -> tuple[TextConditioner, Any]:
    ours, peer = build(32, 1, "<|endoftext|>")
    return TextConditioner([ours]), peer


@torch.no_grad()
def states(peer: Any, ids: list[int], skip: int = 0) -> Tensor:
    """The last state but `skip`, normed, as A1111 and ComfyUI take it."""
    output = peer(torch.tensor([ids]), output_hidden_states=True)
    norm = (
        peer.text_model.final_layer_norm
        if hasattr(peer.text_model, "final_layer_norm")
        else peer.final_layer_norm
    )
    result: Tensor = norm(output.hidden_states[-1 - skip])
    return result


def filled(tokens: list[tuple[int, float]], tokenizer: Tokenizer) -> tuple[list[int], Tensor]:
    whole = [(tokenizer.start, 1.0), *tokens, (tokenizer.end, 1.0)]
    whole += [(tokenizer.pad, 1.0)] * (77 - len(whole))
    return [token for token, _ in whole], torch.tensor([weight for _, weight in whole])[None, :, None]


def a1111(text: str, tokenizer: Tokenizer, peer: Any, emphasis: str, skip: int) -> Tensor:
    """Each stretch tokenised alone; full chunks broken after a comma at most 20 tokens before; weights times states,
    the chunk's mean put back."""
    comma = tokenizer.encode(",")[0]
    full: list[list[tuple[int, float]]] = [[]]
    mark = -1
    for span in dialect_of("a1111").mixture(text)[0].texts[0]:
        if span.breaks:
            full.append([])
            mark = -1
            continue
        for token in tokenizer.encode(span.text):
            chunk = full[-1]
            if token == comma and len(chunk) < 75:
                mark = len(chunk)
            elif len(chunk) == 75:
                if token != comma and mark != -1 and 75 - mark <= 20:
                    full[-1], moved = chunk[: mark + 1], chunk[mark + 1 :]
                    full.append(moved)
                else:
                    full.append([])
                mark = -1
            full[-1].append((token, span.weight))
    found = []
    for chunk in full:
        ids, weights = filled(chunk, tokenizer)
        z = states(peer, ids, skip)
        if emphasis != "ignore":
            mean = z.mean()
            z = z * weights
            if emphasis == "original":
                z = z * (mean / z.mean())
        found.append(z)
    return torch.cat(found, 1)


def comfy(text: str, tokenizer: Tokenizer, peer: Any) -> Tensor:
    """Words that do not fit go to the next chunk, but for those of eight tokens and more; weights scale the distance
    from the empty prompt's states, token by token."""
    full: list[list[tuple[int, float]]] = [[]]
    for span in dialect_of("comfy").mixture(text)[0].texts[0]:
        for word in span.text.split():
            tokens = [(token, span.weight) for token in tokenizer.encode(word)]
            while tokens:
                room = 75 - len(full[-1])
                if len(tokens) <= room:
                    full[-1] += tokens
                    break
                if len(tokens) >= 8:
                    full[-1] += tokens[:room]
                    tokens = tokens[room:]
                full.append([])
    empty = states(peer, filled([], tokenizer)[0])
    found = []
    for chunk in full:
        ids, weights = filled(chunk, tokenizer)
        z = states(peer, ids)
        found.append(torch.where(weights == 1, z, (z - empty) * weights + empty))
    return torch.cat(found, 1)


@pytest.mark.peer
@pytest.mark.parametrize("text", PROMPTS)
@pytest.mark.parametrize(("emphasis", "skip"), [("original", 0), ("no_norm", 1), ("ignore", 2)])
def test_a1111(pair: tuple[TextConditioner, Any], text: str, emphasis: str, skip: int) -> None:
    conditioner, peer = pair
    with torch.no_grad():
        (ours,) = conditioner([Prompt((text,), "a1111", emphasis, skip)])
    close(ours.context, a1111(text, conditioner.clips[0].tokenizer, peer, emphasis, skip))


@pytest.mark.peer
@pytest.mark.parametrize("text", [*PROMPTS, "supercalifragilisticexpialidocious" * 3 + " " + "night " * 80])
def test_comfy(pair: tuple[TextConditioner, Any], text: str) -> None:
    conditioner, peer = pair
    with torch.no_grad():
        (ours,) = conditioner([Prompt((text,), "comfy")])
    close(ours.context, comfy(text, conditioner.clips[0].tokenizer, peer))


@pytest.fixture(scope="module")
def peer_tokenizer(pair: tuple[TextConditioner, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    pair[0].clips[0].tokenizer.save(folder)
    return transformers.CLIPTokenizer.from_pretrained(folder)


@pytest.mark.peer
@pytest.mark.parametrize(
    "text",
    [
        "a red++ boat on a (calm)0.6 sea--",
        '("a red boat", "a (blue)1.3 house").blend(0.7, 0.5)',
        '("a red boat", "a (blue)0.3 house at night").and(1, 0.5)',
        '("a red boat", "' + "a blue house at night, " * 20 + '").blend(1, 0.4, no_normalize)',
        LONG,
        "(" + LONG.replace(",", "") + ")1.2 moon-",
        "((a b)0.5 c)0.9 d",
    ],
)
def test_compel(pair: tuple[TextConditioner, Any], text: str, peer_tokenizer: Any) -> None:
    from compel import Compel, ReturnedEmbeddingsType

    conditioner, peer = pair
    compel = Compel(
        peer_tokenizer,
        peer,
        truncate_long_prompts=False,
        returned_embeddings_type=ReturnedEmbeddingsType.LAST_HIDDEN_STATES_NORMALIZED,
    )
    with torch.no_grad():
        (ours,) = conditioner([Prompt((text,), "compel")])
    close(ours.context, compel(text))


def test_two_encoders_read_prompts_of_their_own() -> None:
    first, _ = build(16, 2, "<|endoftext|>")
    second, _ = build(24, 3, "!")
    both = TextConditioner([first, second])
    with torch.no_grad():
        (same,) = both(["a red boat"])
        (own,) = both([Prompt(("a red boat", "a blue house"))])
        (other,) = both(["a blue house"])
    assert same.context.shape == (1, 77, 40)
    assert torch.equal(own.context[..., :16], same.context[..., :16])
    assert torch.equal(own.context[..., 16:], other.context[..., 16:])
    assert own.pooled is not None
    assert same.pooled is not None
    assert other.pooled is not None
    assert torch.equal(own.pooled, torch.cat([same.pooled[:, :16], other.pooled[:, 16:]], 1))


def test_prompts_of_one_call_have_the_longest_ones_length(pair: tuple[TextConditioner, Any]) -> None:
    with torch.no_grad():
        short, long = pair[0](["a boat", LONG])
        (blank,) = pair[0]([""])
        (alone,) = pair[0](["a boat"])
    assert short.context.shape == long.context.shape == (1, 77 * 3, 32)
    assert torch.equal(short.context, torch.cat([alone.context, blank.context, blank.context], 1))


def test_a_clip_skip_beyond_the_first_layer_is_refused(pair: tuple[TextConditioner, Any]) -> None:
    with pytest.raises(InvalidRequest, match=r"clip_skip is 6: .* 5 layers"):
        pair[0]([Prompt(("a",), skip=5)])


@pytest.mark.peer
@pytest.mark.parametrize(
    ("dialect", "write"),
    [("a1111", str), ("comfy", "embedding:{}".format), ("plain", "<{}>".format), ("compel", "<{}>".format)],
)
def test_embeddings_by_name(dialect: str, write: Callable[[str], str]) -> None:
    """As if their vectors were words of the vocabulary: those of transformers, given more of them."""
    ours, peer = build(32, 1, "<|endoftext|>")
    conditioner = TextConditioner([ours])
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)) * 0.02
    embeddings = (("my-style", Embedding({"text_encoder": vectors})),)
    peer.resize_token_embeddings(49408 + 3, mean_resizing=False)
    with torch.no_grad():
        peer.get_input_embeddings().weight[49408:] = vectors
    tokenizer = ours.tokenizer
    words = [*tokenizer.encode("a boat,"), *range(49408, 49411), *tokenizer.encode("at sea")]
    with torch.no_grad():
        text = f"a boat, {write('My-Style')} at sea"
        (got,) = conditioner([Prompt((text,), dialect, embeddings=embeddings)])
    close(got.context, states(peer, filled([(word, 1.0) for word in words], tokenizer)[0]))


def test_an_embedding_is_not_torn_in_two() -> None:
    tokenizer = Tokenizer.clip()
    vocabulary = Vocabulary(tokenizer, {"ink": torch.zeros(10, 4), "all": torch.zeros(200, 4)})
    from darkroom.prompt.chunks import chunks

    def used(text: str) -> list[int]:
        dialect = dialect_of("a1111")
        return [chunk.used for chunk in chunks(dialect.mixture(text)[0].texts[0], vocabulary, dialect)]

    assert used("boat " * 70 + "ink boat") == [70, 11]
    assert used("inky boat") == [len(tokenizer.encode("inky boat"))]
    assert used("all") == [75, 75, 50]
