"""Can pictures be fooled, and does the trust line notice? `python benchmarks/fooling.py --json`.

A small network learns Fashion-MNIST (Debian's package dataset-fashion-mnist). Then it is manipulated in two ways so
that some of its neurons, which answer to images as before, show a laughing face when they are optimised: a circuit
that tells optimised pictures from images (Geirhos et al. 2024), and weights whose gradients lead there (Bareeva et al.
2025). The attacker knows all five methods and what the pictures begin as, with other seeds than those that are
judged.

``likeness`` is the correlation of a picture's pixels with the face's, ``taken_over`` the share of pictures that are
more like the face than like the honest network's picture of the same neuron. The trust line reads ``peak``, a picture's
activation over the references' mean, ``gap``, and ``readability`` beside that of ``references``. ``flagged`` is the
share of pictures of which it speaks a doubt: false alarms, where a neuron is honest. ``gap_at_5`` and
``unreadable_at_5`` are the bounds on either figure that 5 % of the honest neurons exceed, with the share of manipulated
ones that do. ``estimate`` is what the judge's features make of the neuron's peak in its picture, by a regression over
the images, over the same of its references; ``unlikely_at_5`` is of that. ``steered`` says how far the network leads to
one picture of the neuron, whatever it begins as: the same for every method. ``--tiny`` draws its images and shows no
figure worth reading.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from PIL import Image
from torch import Tensor

sys.path[0] = str(Path(__file__).parents[1])  # not this folder: one of its files is called statistics

from benchmarks.fashion import PACKAGE
from benchmarks.fooled.circuit import Detector, fooled_by_circuit, share_found, trained_detector
from benchmarks.fooled.figures import Eye, Judged, Seen, flagged_at
from benchmarks.fooled.network import (
    Images,
    Network,
    accuracy,
    chosen_picture,
    chosen_pictures,
    drawn,
    fashion,
    scaled,
    trained,
)
from benchmarks.fooled.pictures import METHODS, Subject, in_colour, likeness, luminance
from benchmarks.fooled.slingshot import fooled_by_slingshot

JUDGED, ATTACKER = 0, 1
"""Seeds of the pictures that are judged, and of those that the attacker makes for himself; in another run they are this
many hundreds further."""


@dataclass(frozen=True)
class Scale:
    """How large a run is."""

    training: int = 30_000
    judge: int = 8_000
    epochs: int = 3
    images: int = 2_000
    honest: int = 40
    manipulated: int = 12
    steps: int = 300
    attack_steps: int = 60
    rounds: int = 2
    detector_steps: int = 300
    slingshot_steps: int = 600
    run: int = 0
    """Another number is other networks, units and seeds."""
    pictures: int = 1
    """How many the circuit shows, each where what a picture begins as is nearest to it."""


TINY = Scale(256, 128, 1, 64, 8, 3, 4, 2, 1, 3, 3)


@dataclass(frozen=True)
class World:
    """Images to learn from, images that a user has, and two networks: the one that is looked at and a judge."""

    learnt: Images
    shown: Images
    labels: Int[np.ndarray, "image"]
    network: Network
    eye: Eye

    @classmethod
    def made(cls, source: Path | None, scale: Scale) -> World:
        """From Fashion-MNIST, or of drawn images where there is no ``source``."""
        asked = (("train", scale.training + scale.judge), ("t10k", scale.images))
        if source is None:
            (learnt, classes), (shown, labels) = (drawn(count, len(part)) for part, count in asked)
        else:
            (learnt, classes), (shown, labels) = (fashion(source, part, count) for part, count in asked)
        parts = slice(None, scale.training), slice(scale.training, None)  # the judge learns from other images
        network, judge = (
            trained(learnt[one], classes[one], scale.epochs, seed + 10 * scale.run) for seed, one in enumerate(parts)
        )
        return cls(learnt[: scale.training], shown, labels, network, Eye.of(judge, in_colour(shown)))


def circuit(
    world: World, honest: Subject, neurons: list[int], scale: Scale, kept: dict[int, list[Tensor]]
) -> tuple[Network, Detector]:
    """The network with a circuit, whose detector learns from rounds of pictures: first of the honest network, then of
    the network with the circuit so far."""
    images, faces = scaled(world.learnt), scaled(chosen_pictures(scale.pictures))
    peaks = torch.from_numpy(honest.peaks.max(0)).clamp(min=0.1)
    seen = [torch.cat(part) for part in kept.values()]
    source = torch.Generator().manual_seed(0)
    for turn in range(scale.rounds):
        # The chosen pictures themselves must count as optimised, as must what is nearly one of them.
        near = torch.rand(256, 1, 1, 1, generator=source) * torch.randn(256, 1, 32, 32, generator=source)
        near = near + faces.repeat_interleave(256 // len(faces), 0)
        detector = trained_detector(images, torch.cat([*seen, near]), scale.detector_steps)
        fooled = fooled_by_circuit(world.network, detector, faces, peaks, neurons)
        if turn + 1 < scale.rounds:
            subject, more = Subject.of(fooled, world.shown), {}  # type: ignore[var-annotated]
            target = subject.target(neurons)
            for method in METHODS:
                subject.pictures(target, method, scale.attack_steps, 100 * scale.run + ATTACKER + turn, more)
            seen += [torch.cat(part) for part in more.values()]
    return fooled, detector


def attacked(world: World, honest: Subject, neurons: list[int], scale: Scale) -> tuple[dict[str, Network], Detector]:
    """Both manipulated networks."""
    kept: dict[int, list[Tensor]] = {}
    target = honest.target(neurons)
    for method in METHODS:
        honest.pictures(target, method, scale.attack_steps, 100 * scale.run + ATTACKER, kept)
    with_circuit, detector = circuit(world, honest, neurons, scale, kept)
    begun = torch.cat([one for step in sorted(kept)[:2] for one in kept[step]])
    rows = honest.references(range(honest.peaks.shape[1]))
    heights = torch.from_numpy(np.take_along_axis(honest.peaks, rows.T, 0).mean(0)).clamp(min=0.1)
    face = scaled(chosen_picture()[None])[0]
    shot = fooled_by_slingshot(
        world.network, scaled(world.learnt), begun, face, heights, neurons, scale.slingshot_steps
    )
    return {"circuit": with_circuit, "slingshot": shot}, detector


def likewise(some: Subject, other: Subject, neurons: list[int]) -> float:
    """Mean correlation of two networks' peaks over the images: how far neurons answer as they did."""
    pairs = ((some.peaks[:, one], other.peaks[:, one]) for one in neurons)
    return float(np.mean([np.corrcoef(*pair)[0, 1] for pair in pairs]))


def judged_method(seen: dict[str, Seen], count: int, eye: Eye, faces: Images) -> dict[str, dict[str, Any]]:
    """The figures of one method: of all honest neurons, and of the manipulated ones, which are the first ``count`` of
    either manipulated network."""
    every = {name: Judged.of(one, eye, faces) for name, one in seen.items()}
    honest = every["honest"]
    figures: dict[str, dict[str, Any]] = {"honest": honest.summary()}
    for name in ("circuit", "slingshot"):
        fooled = every[name].take(slice(count))
        before, after = (luminance(seen[one].pixels[:count]) for one in ("honest", name))
        taken_over = fooled.likeness > likeness(after, before)
        figures[name] = fooled.summary() | {
            "taken_over": float(taken_over.mean()),
            "taken_over_flagged": float(fooled.doubtful()[taken_over].mean()) if taken_over.any() else None,
            "gap_at_5": flagged_at(honest.gap, fooled.gap),
            "unlikely_at_5": flagged_at(-honest.estimate, -fooled.estimate),
            "steered_at_5": flagged_at(honest.steered, fooled.steered),
            "unreadable_at_5": flagged_at(
                honest.references - honest.readability, fooled.references - fooled.readability
            ),
        }
    return figures


@dataclass(frozen=True)
class Made:
    """All networks with the pictures of the same neurons, of which the first ones were attacked."""

    world: World
    networks: dict[str, Network]
    subjects: dict[str, Subject]
    manipulated: list[int]
    detector: Detector
    seen: dict[str, dict[str, Seen]]
    """By method and network."""

    @classmethod
    def of(cls, source: Path | None, scale: Scale, vital: Mapping[str, Any] | None = None) -> Made:
        """Train, attack, make pictures; those of method vital that are judged by these settings."""
        world = World.made(source, scale)
        honest = Subject.of(world.network, world.shown)
        live = honest.live()
        if scale.run:
            live = np.random.default_rng(scale.run).permutation(live).tolist()
        neurons = live[: scale.honest]
        manipulated = neurons[: scale.manipulated]
        fooled, detector = attacked(world, honest, manipulated, scale)
        networks = {"honest": world.network} | fooled
        subjects = {"honest": honest} | {name: Subject.of(one, world.shown) for name, one in fooled.items()}
        targets = {name: one.target(manipulated) for name, one in subjects.items()} | {"honest": honest.target(neurons)}
        led = {name: one.steered(neurons) for name, one in subjects.items()}
        seen: dict[str, dict[str, Seen]] = {}
        for method in METHODS:
            changed, seed = (vital or {}) if method == "vital" else {}, 100 * scale.run + JUDGED
            pixels = honest.pictures(targets["honest"], method, scale.steps, seed, changed=changed)
            seen[method] = {"honest": Seen(honest, neurons, pixels, led["honest"])}
            for name in fooled:
                theirs = subjects[name].pictures(targets[name], method, scale.steps, seed, changed=changed)
                # Their other neurons answer as before: the honest network's pictures stand for them.
                shown = np.concatenate([theirs, pixels[len(theirs) :]])
                seen[method][name] = Seen(subjects[name], neurons, shown, led[name])
        return cls(world, networks, subjects, manipulated, detector, seen)

    def figures(self, pictures: int) -> dict[str, Any]:
        """What is printed; ``pictures`` is how many the circuit shows."""
        world, honest, count = self.world, self.subjects["honest"], len(self.manipulated)
        methods = {
            name: judged_method(one, count, world.eye, chosen_pictures(pictures)) for name, one in self.seen.items()
        }
        for name, one in self.seen.items():
            last = scaled(luminance(one["circuit"].pixels[:count]))
            methods[name]["circuit"]["taken_for_pictures"] = share_found(self.detector, last)
        return {
            "neurons": {"honest": len(self.seen[METHODS[0]]["honest"].neurons), "manipulated": count},
            "accuracy": {name: accuracy(one, world.shown, world.labels) for name, one in self.networks.items()},
            "answers_as_before": {
                name: likewise(honest, self.subjects[name], self.manipulated) for name in ("circuit", "slingshot")
            },
            "images_taken_for_pictures": share_found(self.detector, scaled(world.shown)),
            "methods": methods,
        }

    def sheet(self, out: Path, count: int = 8) -> None:
        """The best reference of each neuron, and a row of pictures for every method and network, as one image."""
        rows = [self.world.shown[self.subjects["honest"].references(self.manipulated)[:, 0]]]
        rows += [luminance(one.pixels) for method in self.seen.values() for one in method.values()]
        across = min(count, len(self.manipulated))
        whole = Image.fromarray(np.concatenate([np.concatenate([*row[:across]], 1) for row in rows], 0))
        whole.resize((3 * whole.width, 3 * whole.height), Image.Resampling.NEAREST).save(out)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--source", type=Path, default=PACKAGE, help="folder of the four IDX files")
    parser.add_argument("--out", type=Path, help="also a sheet of pictures: images, then honest, circuit, slingshot")
    parser.add_argument("--run", type=int, default=0, help="other networks, units and seeds")
    parser.add_argument("--pictures", type=int, choices=(1, 2, 4), default=1, help="shown by the circuit")
    parser.add_argument("--vital", type=json.loads, default={}, help="settings of vital's pictures, as a JSON object")
    parser.add_argument("--tiny", action="store_true", help="a few steps on drawn images, to see that all parts run")
    options = parser.parse_args()
    if not (options.tiny or options.source.is_dir()):
        raise SystemExit(f"there is no folder {options.source}: apt install dataset-fashion-mnist, or give --source")
    torch.set_num_threads(1)
    begun = time.perf_counter()
    scale = replace(TINY if options.tiny else Scale(), run=options.run, pictures=options.pictures)
    made = Made.of(None if options.tiny else options.source, scale, options.vital)
    result = made.figures(scale.pictures) | {"seconds": time.perf_counter() - begun}
    if options.out:
        made.sheet(options.out)
    print(json.dumps(result) if options.json else json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
