from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.reference.networks import SIDE
from vital.measuring.exact import total_of
from vital.measuring.gathering import Batch, Gathered, Gathering, Plan, gather
from vital.measuring.image_sums import ImageSums
from vital.measuring.kept.ranking import NOBODY, Ranking
from vital.measuring.kept.sampling import unit_hash
from vital.measuring.sums import LayerSums
from vital.network.layers import Survey, survey
from vital.network.models import Model
from vital.network.preprocessing import Preprocessing
from vital.network.probe import CLASSES

PLAN = Plan(("2", CLASSES), ("0", "1", CLASSES), 4, 20)
COUNT = 9


class Images:
    """Random images with labels, one of them unknown, and keys."""

    def __init__(self) -> None:
        stream = torch.Generator().manual_seed(3)
        self.pixels = torch.randint(0, 256, (COUNT, 3, SIDE, SIDE), generator=stream, dtype=torch.uint8)
        self.rows = np.arange(COUNT)
        self.labels = np.array([0, 1, 0, -1, 0, 0, 9, 0, 10])  # 10: no such class
        self.keys = [f"image-{row}" for row in self.rows]

    def gather(self, model: Model, layers: Survey, of: slice = slice(None), plan: Plan = PLAN) -> Gathered:
        return gather(model, layers, plan, self.batch(of))

    def batch(self, of: slice) -> Batch:
        return Batch(self.pixels[of], self.rows[of], self.labels[of], self.keys[of])


@pytest.fixture
def images() -> Images:
    return Images()


def assert_same(first: Gathered, second: Gathered, tolerance: float = 0) -> None:
    mine, theirs = first.arrays(), second.arrays()
    assert mine.keys() == theirs.keys()
    for path in mine:
        exact = path.endswith(("images", "sites", "count"))
        parted = path.startswith(("sums/", "light/")) and not path.endswith(("count", "minimum", "maximum"))
        first_, second_ = ((total_of(one[path]) if parted and tolerance else one[path]) for one in (mine, theirs))
        # The network's own float32 sums may depend on the batch; the additions here do not.
        np.testing.assert_allclose(
            first_, second_, rtol=0 if exact else tolerance, atol=0 if exact else tolerance, err_msg=path
        )


@pytest.mark.parametrize("cuts", [(1, 2), (0, 5), (3, 9), (4, 4)])
def test_groups_of_images_merge_to_what_one_pass_gives(
    tiny: Callable[..., Model], images: Images, cuts: tuple[int, int]
) -> None:
    model = tiny()
    layers = survey(model)
    whole, none = images.gather(model, layers), Gathered.none(PLAN, layers, SIDE)
    parts = [slice(0, cuts[0]), slice(cuts[0], cuts[1]), slice(cuts[1], COUNT)]
    a, b, c = (images.gather(model, layers, part) if part.start < part.stop else none for part in parts)
    assert_same(a + b + c, whole, 1e-5)
    assert_same(none + whole, whole)
    assert_same(whole + none, whole)
    assert_same((a + b) + c, a + (b + c))


def test_batches_that_are_added_one_after_the_other_are_those_that_merge(
    tiny: Callable[..., Model], images: Images
) -> None:
    model, plan = tiny(), Plan(("2", CLASSES, "0.0/lowest", "0.0@3,3"), ("0", "1", CLASSES), 4, 20)
    layers = survey(model)
    gathering = Gathering(model, layers, plan)
    merged = Gathered.none(plan, layers, SIDE)
    for part in (slice(0, 4), slice(4, 5), slice(5, COUNT)):
        gathering.add(images.batch(part))
        merged = merged + images.gather(model, layers, part, plan)
    assert_same(gathering.gathered(), merged)


def test_a_shard_s_own_rows_become_the_data_set_s(tiny: Callable[..., Model], images: Images) -> None:
    model = tiny()
    layers = survey(model)
    late = slice(4, COUNT)
    own = gather(
        model, layers, PLAN, Batch(images.pixels[late], np.arange(COUNT - 4), images.labels[late], images.keys[late])
    )
    assert_same(own.shifted(4), images.gather(model, layers, late))


def test_scores_are_the_maxima_of_maps_at_the_first_such_site(tiny: Callable[..., Model], images: Images) -> None:
    model = tiny()
    ranking = images.gather(model, survey(model)).rankings["2"]
    x = model.preprocessing.normalise(images.pixels)
    maps = nn.Sequential(*list(model.network.children())[:3])(x).flatten(2).numpy()
    for neuron in range(12):
        peaks = maps[:, neuron].max(-1)
        best = sorted(range(COUNT), key=lambda image: (-peaks[image], image))[:4]
        assert ranking.images[neuron].tolist() == best
        assert ranking.sites[neuron].tolist() == [int(maps[image, neuron].argmax()) for image in best]
        np.testing.assert_allclose(ranking.scores[neuron], peaks[best], rtol=1e-5)


def test_members_of_a_class_are_drawn_by_lot(tiny: Callable[..., Model], images: Images) -> None:
    model = tiny()
    ranking = images.gather(model, survey(model)).rankings[CLASSES]
    members = sorted([0, 2, 4, 5, 7], key=lambda row: unit_hash(f"image-{row}"))
    assert ranking.images[0].tolist() == members[:4]
    assert ranking.images[1].tolist() == [1, NOBODY, NOBODY, NOBODY]
    assert ranking.images[9].tolist() == [6, NOBODY, NOBODY, NOBODY]
    assert ranking.taken.tolist() == [4, 1, 0, 0, 0, 0, 0, 0, 0, 1]


def test_class_members_alone_need_no_forward_pass(tiny: Callable[..., Model], images: Images) -> None:
    model = tiny()
    layers = survey(model)
    model.network.register_forward_pre_hook(lambda module, inputs: pytest.fail("the network was run"))
    assert images.gather(model, layers, plan=Plan((CLASSES,), (), 4, 20)).rankings.keys() == {CLASSES}


def test_sums_are_those_of_the_activations(tiny: Callable[..., Model], images: Images) -> None:
    model = tiny()
    sums = images.gather(model, survey(model)).sums
    x = model.preprocessing.normalise(images.pixels)
    maps = nn.Sequential(*list(model.network.children())[:2])(x).flatten(2).double().numpy()
    assert sums["1"].count == COUNT
    np.testing.assert_allclose(total_of(sums["1"].total), maps.mean(-1).sum(0), rtol=1e-4)
    np.testing.assert_allclose(sums["1"].maximum, maps.max((0, 2)), rtol=1e-5)
    assert total_of(sums["0"].quantiles).shape == (6, 20)
    np.testing.assert_allclose(
        total_of(sums[CLASSES].total), model.network(x).double().numpy().sum(0), rtol=1e-3, atol=1e-4
    )


def shown(sums: LayerSums, name: str) -> np.ndarray:
    """A statistic, of an exact sum the sum itself."""
    value: np.ndarray = getattr(sums, name)
    return total_of(value) if LayerSums.statistics()[name].adds else value


def test_a_direction_along_an_axis_has_the_sums_of_that_channel_and_a_lone_site_those_of_its_layer(
    tiny: Callable[..., Model], images: Images
) -> None:
    model = tiny()
    axes = 2 * np.eye(12, dtype=np.float32)[[3, 7]]  # twice as long: twice the activation
    layers = replace(survey(model), directions={"axes": axes})
    plan = Plan((), ("2", "2~axes", "2@1,2", "2@0,0", "3", "3@0,0"), 4, 20)
    sums = images.gather(model, layers, plan=plan).sums
    channels, along = sums["2"], sums["2~axes"]
    for name, factor in {
        "total": 2, "squares": 4, "minimum": 2, "maximum": 2, "active": 1, "peaks": 2, "peak_squares": 4
    }.items():  # fmt: skip
        mine, theirs = (shown(one, name) for one in (along, channels))
        np.testing.assert_allclose(mine, factor * theirs[[3, 7]], rtol=1e-6)
        np.testing.assert_allclose(shown(sums["3@0,0"], name), shown(sums["3"], name), rtol=1e-6)
    maps = nn.Sequential(*list(model.network.children())[:3])(model.preprocessing.normalise(images.pixels)).flatten(2)
    at_site = maps[:, :, 6].double().numpy()
    np.testing.assert_allclose(total_of(sums["2@1,2"].peaks), at_site.sum(0), rtol=1e-6)
    np.testing.assert_allclose(total_of(sums["2@1,2"].total), at_site.sum(0), rtol=1e-6)
    np.testing.assert_array_equal(total_of(sums["2@1,2"].active), (at_site > 0).sum(0))
    assert not np.array_equal(sums["2@1,2"].peaks, sums["2@0,0"].peaks)


def test_sums_of_directions_have_no_rows_and_come_back_from_storage(tiny: Callable[..., Model], images: Images) -> None:
    layers = replace(survey(tiny()), directions={"axes": np.eye(12, dtype=np.float32)})
    plan = Plan((), ("2~axes",), 4, 20)
    gathered = images.gather(tiny(), layers, plan=plan)
    assert_same(Gathered.none(plan, layers, SIDE) + gathered, gathered)
    assert_same(Gathered.from_arrays(gathered.arrays()), gathered)
    sums = gathered.sums["2~axes"]
    stored = sums.stored()
    assert {"mean", "active", "peak_mean", "peak_deviation", "sums/peaks", "sums/count"} < stored.keys()
    assert "quantiles" not in {path.removeprefix("sums/") for path in stored}
    again = LayerSums.from_stored(stored)
    for part in fields(LayerSums):
        np.testing.assert_array_equal(getattr(again, part.name), getattr(sums, part.name))


def test_everything_comes_back_from_its_arrays(tiny: Callable[..., Model], images: Images) -> None:
    model = tiny()
    whole = images.gather(model, survey(model))
    back = Gathered.from_arrays(whole.arrays())
    assert_same(back, whole)
    assert isinstance(back.sums["0"].count, int)
    assert isinstance(back.image_sums.count, int)
    assert isinstance(back.rankings["2"], Ranking)


def test_names_with_slashes_and_dots_come_back() -> None:
    ranking = Ranking.of(np.ones((2, 1)), np.arange(2), np.zeros((2, 1), np.int64), 2)
    whole = Gathered({"_blocks.13": ranking, "a/b": ranking}, {}, ImageSums.none(4))
    assert Gathered.from_arrays(whole.arrays()).rankings.keys() == {"_blocks.13", "a/b"}


def test_the_class_token_is_no_site_to_rank() -> None:
    class Tokens(nn.Module):
        """A class token that outshines everything, before four tokens of the image."""

        def __init__(self) -> None:
            super().__init__()
            self.embed, self.tokens = nn.Conv2d(3, 2, 8, 8), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.embed(x).flatten(2).transpose(1, 2)
            seen: torch.Tensor = self.tokens(torch.cat([torch.full_like(x[:, :1], 1e6), x], 1))
            return seen.mean(1)

    model = Model("tokens", Tokens().eval(), Preprocessing(16, (0.5,) * 3, (0.25,) * 3))
    pixels = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    layers = survey(model)
    assert layers.layer("tokens").sites == 5
    ranking = gather(
        model, layers, Plan(("tokens",), (), 3, 8), Batch(pixels, np.arange(3), np.full(3, -1), ["a", "b", "c"])
    ).rankings["tokens"]
    with torch.inference_mode():
        maps = model.network.get_submodule("embed")(model.preprocessing.normalise(pixels)).flatten(2).numpy()
    for neuron in range(2):
        order = np.argsort(-maps[:, neuron].max(-1))
        assert ranking.images[neuron].tolist() == order.tolist()
        assert ranking.sites[neuron].tolist() == maps[order, neuron].argmax(-1).tolist()
        np.testing.assert_allclose(ranking.scores[neuron], maps[order, neuron].max(-1), rtol=1e-5)


def test_light_is_what_numpy_finds() -> None:
    pixels = torch.randint(0, 256, (3, 3, 8, 8), dtype=torch.uint8)
    light = ImageSums.of(pixels)
    colours = pixels.double().numpy() / 255
    centred = colours - colours.mean((2, 3), keepdims=True)
    spectrum = np.abs(np.fft.rfft2(centred, norm="ortho")).sum(0)
    np.testing.assert_allclose(total_of(light.spectrum), spectrum, rtol=1e-4, atol=1e-5)
    clipped = np.clip(colours, 0.02, 0.98)
    logits = np.log(clipped / (1 - clipped))
    result, samples = light.colours(), logits.transpose(1, 0, 2, 3).reshape(3, -1)
    np.testing.assert_allclose(result.mean, samples.mean(1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(result.covariance, np.cov(samples, bias=True), rtol=1e-4, atol=1e-5)
    halves = ImageSums.of(pixels[:1]) + ImageSums.of(pixels[1:])
    for part in fields(ImageSums):
        np.testing.assert_allclose(getattr(halves, part.name), getattr(light, part.name), rtol=1e-6, atol=1e-9)


def test_values_between_bytes_have_the_light_of_their_formula_and_stay_as_they_are() -> None:
    pixels = torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8)
    whole, fine = pixels.float(), pixels.float() * 0.99 + 0.3
    before = fine.clone()
    for part in fields(ImageSums):
        same, known = (getattr(ImageSums.of(one), part.name) for one in (whole, pixels))
        np.testing.assert_allclose(same, known, rtol=1e-6, atol=1e-6)
    logits = np.log((light := np.clip(before.numpy().astype(np.float64) / 255, 0.02, 0.98)) / (1 - light))
    np.testing.assert_allclose(ImageSums.of(fine).colours().mean, logits.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert torch.equal(fine, before)
