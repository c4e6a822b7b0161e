"""Names through the whole recipe: planted neurons get their words, others none; what is missing is said before work."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import flows
import vital
from flows.jobs import NamesJob, Running
from flows.recipes.names import name_atlas
from flows.running.process import load_stored
from flows.steps.images import load_images
from flows.steps.vocabulary import read_broader, read_vocabulary
from stores import Atlas, Naming, open_atlas, open_statistics
from stores.atlas.layer import PictureArrays
from stores.errors import SchemaMismatch
from tests.flows import tiny
from tests.flows.command import vital as command
from tests.flows.conftest import LAYER, Made
from vital.errors import UnknownModel, UnsuitableInput
from vital.network.sources import torchvision_models

pytestmark = pytest.mark.slow

COLOURS = {"red": (200, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 200), "grey": (128, 128, 128)}
SIDE, IMAGES = 16, 120


class Eyes(nn.Module):
    """Channels that see red, green, blue, nothing, brightness, and what is not blue; logits of red, green and blue."""

    def __init__(self) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 6, 1, bias=False)
        weights = [[2, -1, -1], [-1, 2, -1], [-1, -1, 2], [0, 0, 0], [1, 1, 1], [1, 1, -2]]
        with torch.no_grad():
            self.see.weight.copy_(torch.tensor(weights, dtype=torch.float32)[:, :, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits."""
        seen: torch.Tensor = self.see(images).mean((2, 3))[:, :3]
        return seen


def eyes() -> nn.Module:
    """The network whose neurons are known."""
    return Eyes()


@pytest.fixture(scope="module")
def coloured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, vital.Model]:
    """Images of a colour each, more or less bright, and the statistics of the network that sees them."""
    folder, stream = tmp_path_factory.mktemp("names"), np.random.default_rng(0)
    members: dict[str, bytes] = {}
    for number in range(IMAGES):
        label = number % (len(COLOURS) + 1)
        colour = np.array([*COLOURS.values(), (90, 20, 90)][label])
        noisy = colour * stream.uniform(0.3, 1.2) + stream.normal(0, 12, (SIDE, SIDE, 3))
        buffer = io.BytesIO()
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(buffer, "PNG")
        members[f"photo{number:03d}.png"] = buffer.getvalue()
        if label < len(COLOURS):  # those of the fifth colour have none
            members[f"photo{number:03d}.cls"] = str(label).encode()
    tiny.write_tar(folder / "shards" / "colours-000000.tar", members)
    (folder / "shards" / "classes.json").write_text(json.dumps(list(COLOURS)))
    model = vital.wrap(eyes(), side=SIDE, mean=(0.5,) * 3, std=(0.5,) * 3, name="eyes", class_names=["r", "g", "b"])
    flows.references(folder / "shards", folder / "s.zarr", model=model, layers=["see"], references=2, levels=8)
    return folder, model


@pytest.fixture
def atlas(coloured: tuple[Path, vital.Model], tmp_path: Path) -> Atlas:
    """An atlas of these neurons without a picture: a name needs none."""
    made, statistics = open_atlas(str(tmp_path / "a.zarr"), "a"), open_statistics(str(coloured[0] / "s.zarr"))
    made.claim(statistics)
    made.layer("see").claim({"side": 8, "variant": "patch", "preset": "natural", "steps": 1, "seed": 0})
    made.layer("see").declare(PictureArrays(6, 32, 2))
    return open_atlas(made.url)


def named(atlas: Atlas) -> Naming:
    found = open_atlas(atlas.url).layer("see").naming()
    assert found is not None
    return found


def test_labels_name_the_neurons_that_see_them(atlas: Atlas) -> None:
    found = flows.names(atlas, shuffles=50)
    assert found.layer("see").names[:5] == ["red", "green", "blue", "", ""]
    assert found.layer("see").neuron_name(1) == "channel 1, green"
    naming, statistics = named(atlas), atlas.statistics()
    assert (naming.score[:3, 0] > 0.8).all()
    # what speaks for it: images with the label, of those that did not choose it
    labels = statistics.image_labels()
    for neuron in range(3):
        assert set(labels[naming.evidence[neuron]]) == {neuron}
        np.testing.assert_array_equal(naming.shown[neuron], 1)
    said = naming.made_from
    assert said["source"] == "labels"
    assert said["words"] == len(COLOURS)
    assert said["images_that_chose"] + said["images_that_scored"] == int((labels >= 0).sum())
    assert {"base", "dataset", "shuffles", "quantile", "words_digest"} <= said.keys()
    assert said["dataset"] == statistics.dataset_fingerprint
    # the dead channel has no word at all, the one that sees brightness none that chance does not reach
    assert naming.word[3, 0] == ""
    assert naming.word[4, 0] != ""
    assert f"{naming.named.sum()} of 6 neurons have a name, of 4 words by labels" in "\n".join(found.summary())


def test_broader_words_stand_for_several(atlas: Atlas, tmp_path: Path) -> None:
    (tmp_path / "broader.json").write_text(json.dumps({"not blue": ["red", "Green", "purple"], "nothing": ["x"]}))
    flows.names(atlas, broader=tmp_path / "broader.json", shuffles=50)
    naming = named(atlas)
    assert naming.made_from["words"] == len(COLOURS) + 1
    assert naming.names[:3] == ["red", "green", "blue"]
    assert naming.names[5] == "not blue"


def test_a_word_that_is_broader_than_itself_stands_once(atlas: Atlas, tmp_path: Path) -> None:
    """Two words that are spelt alike would be two names that nobody can tell apart."""
    (tmp_path / "broader.json").write_text(json.dumps({"Red": ["green"]}))
    flows.names(atlas, broader=tmp_path / "broader.json", shuffles=50)
    naming = named(atlas)
    assert naming.made_from["words"] == len(COLOURS)
    assert naming.names[5] == "Red"  # of red images and green ones: what is not blue


def test_a_judge_names_by_its_own_classes(coloured: tuple[Path, vital.Model], atlas: Atlas) -> None:
    """A network that classifies says how much a word is in an image, labelled or not; here one that sees the same."""
    judge = f"{__name__}:eyes"
    flows.names(atlas, judge=judge, shuffles=50, model=coloured[1])
    naming = named(atlas)
    assert naming.names[:3] == ["r", "g", "b"]
    assert naming.made_from["source"] == f"logits of {judge}"
    assert len(naming.made_from["judge_weights"]) > 8
    assert naming.made_from["images_that_chose"] + naming.made_from["images_that_scored"] == IMAGES


def tiny_clip(folder: Path) -> tuple[Any, Any]:
    """A CLIP of a few random numbers in open_clip's own code, and the tokens of words."""
    torchvision_models()  # open_clip imports torchvision, which so works beside any torch
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": SIDE, "layers": 1, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 1},
    }
    (folder / "tiny-clip.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    tokenizer = open_clip.get_tokenizer("tiny-clip")
    return open_clip.create_model("tiny-clip").eval(), lambda words: tokenizer([f"a photo of a {one}" for one in words])


def by_clip(atlas: Atlas, network: nn.Module, folder: Path, words: str) -> Naming:
    """The names that such a network gives by a file of words."""
    torch.save(network.state_dict(), folder / "clip.pt")
    (folder / "words.txt").write_text(words)
    job = NamesJob(
        atlas=atlas.url, vocabulary=str(folder / "words.txt"), judge=f"open_clip:tiny-clip/{folder / 'clip.pt'}",
        running=Running(threads=1), shuffles=20,
    )  # fmt: skip
    name_atlas(job)
    return named(atlas)


def test_words_planted_in_clip_are_the_names_of_what_they_were_planted_for(
    coloured: tuple[Path, vital.Model], atlas: Atlas, tmp_path: Path
) -> None:
    """The text of a word is made to point where CLIP sees a colour, in images of its own; the channel that sees this
    colour gets the word."""
    network, tokens = tiny_clip(tmp_path)
    words, stream = ["meadow", "sky", "crimson"], np.random.default_rng(1)
    mean, std = (torch.tensor(one)[:, None, None] for one in (network.visual.image_mean, network.visual.image_std))
    images = torch.tensor(stream.uniform(0, 1, (300, 3, 1, 1)) + stream.normal(0, 0.05, (300, 3, SIDE, SIDE))).float()
    red, green, blue = images.mean((2, 3)).T
    excess = torch.stack([2 * green - red - blue, 2 * blue - red - green, 2 * red - green - blue], 1)
    with torch.no_grad():
        network.text_projection = nn.Parameter(torch.eye(64))
        texts, seen = network.encode_text(tokens(words)), network.encode_image((images - mean) / std, normalize=True)
        directions = torch.linalg.lstsq(seen - seen.mean(0), excess - excess.mean(0)).solution
        network.text_projection = nn.Parameter(torch.linalg.lstsq(texts, directions.T).solution)
    naming = by_clip(atlas, network, tmp_path, "\n".join(words))
    assert naming.word[:3, 0].tolist() == ["crimson", "meadow", "sky"]
    assert (naming.score[:3, 0] > np.maximum(naming.bound[:3], 0.9)).all()
    assert naming.names[0] == "crimson"
    assert naming.names[3] == ""  # it sees nothing


def test_clip_scores_the_words_of_a_file(coloured: tuple[Path, vital.Model], atlas: Atlas, tmp_path: Path) -> None:
    """Its cosines are the words' scores."""
    network, tokens_of = tiny_clip(tmp_path)
    naming = by_clip(atlas, network, tmp_path, "crimson\nmeadow\n\nCrimson\nsky\n")
    assert naming.made_from["words"] == 3
    assert naming.made_from["vocabulary"] == "words.txt"
    statistics = atlas.statistics()
    preprocessing = load_stored(statistics, Running(threads=1)).model.preprocessing
    neuron = int(np.flatnonzero(naming.word[:, 0] != "")[0])
    pixels = dict(load_images(statistics, naming.evidence[neuron].tolist(), preprocessing, {}))
    images = torch.stack([pixels[int(image)] for image in naming.evidence[neuron]]).float() / 255
    mean, std = torch.tensor(network.visual.image_mean), torch.tensor(network.visual.image_std)
    tokens = tokens_of([naming.word[neuron, 0]])
    with torch.inference_mode():
        seen = network.encode_image((images - mean[:, None, None]) / std[:, None, None], normalize=True)
        text = network.encode_text(tokens, normalize=True)
    np.testing.assert_allclose(naming.shown[neuron], (seen @ text.T)[:, 0].numpy(), atol=1e-4)


def test_what_cannot_be_named_is_said_before_work(atlas: Atlas, made: Made, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("red\n")
    with pytest.raises(UnsuitableInput, match="need a network that finds them in images: give a CLIP model"):
        flows.names(atlas, words)
    with pytest.raises(UnsuitableInput, match="knows its own classes alone"):
        flows.names(atlas, words, judge=f"{__name__}:eyes")
    with pytest.raises(UnknownModel, match="no model 'sqeezenet'"):
        flows.names(atlas, judge="sqeezenet")
    with pytest.raises(SchemaMismatch, match="has no layer 'saw'; the nearest are see"):
        flows.names(atlas, layers="saw")
    with pytest.raises(UnsuitableInput, match="wrods"):
        flows.names(atlas, wrods=3)
    with pytest.raises(UnsuitableInput, match="8 at least"):
        flows.names(str(made.atlas), layers=LAYER)
    assert open_atlas(atlas.url).layer("see").naming() is None


def test_the_command_prints_names_and_other_words_take_their_place(atlas: Atlas) -> None:
    said = command("names", atlas.url, "--vocabulary", "classes", "--shuffles", 50, "--words", 1)
    assert said.exit_code == 0, said.output
    assert " of 6 neurons have a name, of 4 words by labels" in said.output
    assert "green" in said.output
    again = command("names", atlas.url, "--shuffles", 50, "--words", 2)
    assert again.exit_code == 0, again.output
    assert named(atlas).word.shape == (6, 2)
    refused = command("names", atlas.url, "--vocabulary", "nowhere.txt", "--judge", "open_clip:ViT-B-32/x")
    assert refused.exit_code == 1
    assert "there is no vocabulary at" in refused.output


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"", "no word in it"), (b"\n \n", "no word in it"), (b"\xff\xfe\x00", "no text in UTF-8"), (b"x" * 300, "300")],
)
def test_a_file_that_is_no_vocabulary_is_refused(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_bytes(content)
    with pytest.raises(UnsuitableInput, match=says):
        read_vocabulary(str(tmp_path / "w.txt"))


@pytest.mark.parametrize(
    "content", ["word,score\ndog,1\n", "dog,cat,horse\n", "1\tdog\n", '["dog", "cat"]', "d\0o\0g\0"]
)
def test_a_table_is_no_vocabulary(content: str, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text(content)
    with pytest.raises(UnsuitableInput, match="is no list of words but a table or JSON: write one word a line"):
        read_vocabulary(str(tmp_path / "w.txt"))
    with pytest.raises(UnsuitableInput, match=r"cannot be read .*: give a text file of words"):
        read_vocabulary(str(tmp_path))


def test_a_vocabulary_is_read_as_people_write_it(tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_bytes("\ufeffdog\r\n\r\n  polar   bear \nDog\nслон\nice cream, a dessert".encode())
    assert read_vocabulary(str(tmp_path / "w.txt")) == ["dog", "polar bear", "слон", "ice cream, a dessert"]
    with pytest.raises(UnsuitableInput, match="there is no vocabulary"):
        read_vocabulary(str(tmp_path / "none.txt"))


def test_broader_words_that_are_none_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "b.json"
    for content, says in (
        ("[1]", "no table"),
        ('{"a": 3}', "no table"),
        ("{", "no table"),
        ('{"a": ["x"]}', "none of"),
    ):
        file.write_text(content)
        with pytest.raises(UnsuitableInput, match=says):
            read_broader(str(file), ["tench, Tinca tinca", "pug"])
    file.write_text('{"fish": ["tinca_Tinca"], "": ["pug"]}')
    assert read_broader(str(file), ["tench, Tinca tinca", "pug"]) == {"fish": [0]}


def test_broader_words_name_classes_by_id_and_number(tmp_path: Path) -> None:
    """As the command's help has them: of 0 to 999, as ImageNet's are numbered; torchvision's names are the oracle."""
    imagenet = torchvision_models().ResNet50_Weights.DEFAULT.meta["categories"]
    file = tmp_path / "b.json"
    file.write_text('{"fish": ["n01440764", 1], "tower": ["n03028079", "beacon"], "dog": ["n02085620"]}')
    labels = ["beacon", "goldfish", "tench", "church"]
    assert read_broader(str(file), labels, imagenet) == {"fish": [1, 2], "tower": [0, 3]}
    assert read_broader(str(file), imagenet, imagenet)["dog"] == [151]
    file.write_text('{"Church": ["beacon"]}')
    assert read_broader(str(file), labels, imagenet) == {"Church": [0, 3]}


def test_wordnet_s_file_of_nouns_gives_broader_words(tmp_path: Path) -> None:
    lines = [b"  1 This software and database is being provided\n"]
    for name, above in (("thing", 0), ("fish", 1), ("tench", 2), ("goldfish", 2), ("church", 1)):
        at = sum(map(len, lines))
        to = f"001 @ {sum(map(len, lines[:above])):08d} n 0000" if above else "000"
        lines.append(f"{at:08d} 05 n 01 {name} 0 {to} | one  \n".encode())
    (tmp_path / "data.noun").write_bytes(b"".join(lines))
    ids = [line[:8].decode() for line in lines]
    assert read_broader(str(tmp_path / "data.noun"), [f"n{ids[row]}" for row in (5, 4, 3)]) == {"fish": [1, 2]}
    with pytest.raises(UnsuitableInput, match="by the ids of ImageNet's classes"):
        read_broader(str(tmp_path / "data.noun"), ["red", "green"])
