"""Synthetic panoramas of people who interact, in JRDB's layout; for demo and tests.

    python -m ddptrain.data.synthetic.people FOLDER [--train 100] [--val 12] [--frames 2] [--seed 0]

    FOLDER/images/image_stitched/<sequence>/000000.jpg, labels/labels_2d_activity_social_stitched/<sequence>.json,
    train.txt, val.txt

Who interacts is seen by how people stand (near, equally far from the camera) and by what they do: they turn to one another,
gesture, shake hands, walk in step, share a bench or point at the same board. Others stand as near and turn away, or are only
near in the picture, at another depth. In every sequence a group stands on the seam.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ddptrain.seeding import rng

WIDTH, HEIGHT = 940, 120
KINDS = ("conversation", "walking together", "sitting together", "shaking hands", "looking at sth together")
"""What groups do; `standing together` is said of conversations and hand shakes besides."""
POSES = dict(zip(KINDS, ("talking", "walking", "sitting", "reaching", "pointing")))
ACTIONS = {"walking together": "walking", "sitting together": "sitting"}
HORIZON = 38
SLOTS = 10
Colour = tuple[int, int, int]


@dataclass
class Person:
    """One person: place of the centre in pixels, height, where they look (-1 left, 0 to the camera, 1 right), pose, colours."""

    x: float
    height: float
    facing: int
    pose: str = "standing"
    colours: tuple[Colour, Colour] = ((0, 0, 0), (0, 0, 0))

    @property
    def box(self) -> tuple[float, float, float, float]:
        """x, y, w, h; people farther away are smaller and stand higher."""
        w, h = 0.42 * self.height, self.height * (0.75 if self.pose == "sitting" else 1.0)
        foot = HORIZON + 0.85 * self.height
        return self.x - w / 2, foot - h, w, h


@dataclass
class Group:
    """People who do something together (`kind`), or only stand near one another (None)."""

    kind: str | None
    people: list[Person] = field(default_factory=list)


def make_sequence(seed: int, number: int) -> list[Group]:
    """The people of a sequence where it begins."""
    r = rng(seed, number, "sequence")
    groups: list[Group] = []
    # the first person stands on the seam, the other groups in places around the panorama
    for place, slot in enumerate((0, *(r.permutation(SLOTS - 1)[: SLOTS - 3] + 1).tolist())):
        x = slot * WIDTH / SLOTS + float(r.uniform(-12, 12))
        groups.append(_group(r, x, KINDS[int(r.integers(len(KINDS)))] if place < SLOTS // 2 else None))
    for person in groups[0].people[1:]:
        person.x -= groups[0].people[0].x
    groups[0].people[0].x = 0.0
    return groups


def _colour(r: np.random.Generator) -> Colour:
    b, g, red = (int(v) for v in r.integers(20, 230, 3))
    return b, g, red


def _group(r: np.random.Generator, x: float, kind: str | None) -> Group:
    height = float(r.uniform(48, 84))
    width = 0.42 * height
    gaps = {"shaking hands": 1.45, "sitting together": 1.15, "walking together": 1.2}
    gap = gaps.get(kind or "", 1.6) * float(r.uniform(0.9, 1.15))
    if kind is None:
        return Group(None, _strangers(r, x, height, gap))
    turned, group = int(r.choice([-1, 1])), Group(kind)
    count = 3 if kind != "shaking hands" and r.random() < 0.3 else 2
    for i in range(count):
        place = (i - (count - 1) / 2) * gap * width
        facing = {"walking together": turned, "sitting together": 0, "looking at sth together": turned}.get(kind)
        if facing is None:
            facing = 1 if place < 0 else -1
        own = height * float(r.uniform(0.96, 1.04))
        group.people.append(Person(x + place, own, facing, POSES[kind], (_colour(r), _colour(r))))
    return group


def _strangers(r: np.random.Generator, x: float, height: float, gap: float) -> list[Person]:
    """One to three people who have nothing to do with each other."""
    people = []
    back_to_back = r.random() < 0.5
    looks = r.permutation((-1, 0, 1)).tolist()  # no two alike: they do not walk or look together
    for i in range(int(r.integers(1, 4))):
        own = height * float(r.uniform(0.95, 1.05) if back_to_back else r.choice([0.62, 0.78, 1.0, 1.25]))
        facing = (-1, 1, 0)[i] if back_to_back else looks[i]
        place = (-0.5, 0.5, 1.6)[i] * gap * 0.42 * height * float(r.uniform(0.8, 1.3))
        people.append(Person(x + place, min(own, 88), facing, str(r.choice(["standing", "walking"])), (_colour(r), _colour(r))))
    return people


def draw_frame(groups: list[Group], seed: int, number: int) -> np.ndarray:
    """uint8 `[HEIGHT, WIDTH, 3]` BGR."""
    r = rng(seed, number, "frame")
    wide = np.full((HEIGHT, 3 * WIDTH, 3), 150, np.uint8)
    wide[:HORIZON] = 205
    for _ in range(40):  # a room that is the same on all three copies
        x, y, w, h = (int(v) for v in (*r.integers(0, (WIDTH, HORIZON)), *r.integers((20, 5), (90, 40))))
        tint = _colour(r)
        for copy in range(3):
            part = wide[y : y + h, x + copy * WIDTH : x + copy * WIDTH + w]
            part[:] = (0.75 * part + 0.25 * np.array(tint)).astype(np.uint8)
    for copy in range(3):
        for group in sorted(groups, key=lambda g: min(p.height for p in g.people)):
            _draw_group(wide, group, copy * WIDTH)
    # the middle one: what goes over its edges was drawn by its neighbours, too
    noise = r.normal(0, 5, (HEIGHT, WIDTH, 3))
    return np.clip(wide[:, WIDTH : 2 * WIDTH] + noise, 0, 255).astype(np.uint8)


def _draw_group(canvas: np.ndarray, group: Group, shift: int) -> None:
    first, last = group.people[0], group.people[-1]
    foot, h = HORIZON + 0.85 * first.height, first.height
    if group.kind == "sitting together":
        left, right = round(first.x - 0.3 * h + shift), round(last.x + 0.3 * h + shift)
        cv2.rectangle(canvas, (left, round(foot - 0.36 * h)), (right, round(foot - 0.22 * h)), (40, 70, 110), -1)
    if group.kind == "looking at sth together":
        side = first.facing
        x = (last if side > 0 else first).x + side * 0.42 * h + shift
        top, bottom = (round(x), round(foot - 0.95 * h)), (round(x + side * 0.2 * h), round(foot - 0.4 * h))
        for colour, thickness in (((250, 250, 250), -1), ((30, 30, 30), 1)):
            cv2.rectangle(canvas, top, bottom, colour, thickness)
    for person in sorted(group.people, key=lambda p: p.height):
        _draw_person(canvas, person, shift)


def _draw_person(canvas: np.ndarray, person: Person, shift: int) -> None:
    h, x, foot, side = person.height, person.x + shift, HORIZON + 0.85 * person.height, person.facing
    shirt, trousers = person.colours

    def at(dx: float, dy: float) -> tuple[int, int]:
        """A point `dx` heights beside the centre and `dy` heights above the feet."""
        return round(x + dx * h), round(foot - dy * h)

    thick, low = max(2, round(0.07 * h)), 0.25 if person.pose == "sitting" else 0.0
    hip, shoulder, head = 0.48 - low, 0.8 - low, 0.9 - low
    spread = {"walking": 0.15, "sitting": 0.1}.get(person.pose, 0.05)
    for leg in (-1, 1):
        cv2.line(canvas, at(leg * 0.04, hip), at(leg * spread, 0.02), trousers, thick, cv2.LINE_AA)
    cv2.rectangle(canvas, at(-0.09, shoulder), at(0.09, hip - 0.04), shirt, -1)
    hand = {"talking": (0.16, shoulder - 0.03), "reaching": (0.36, shoulder - 0.2), "pointing": (0.2, shoulder + 0.2)}.get(
        person.pose
    )
    for arm in (-1, 1):
        reach = hand if hand is not None and arm == side else (0.13, hip)
        cv2.line(canvas, at(arm * 0.09, shoulder - 0.02), at(arm * reach[0], reach[1]), shirt, max(2, thick - 1), cv2.LINE_AA)
        cv2.circle(canvas, at(arm * reach[0], reach[1]), max(2, round(0.035 * h)), (150, 180, 225), -1, cv2.LINE_AA)
    radius = round(0.095 * h)
    cv2.circle(canvas, at(0, head), radius, (30, 40, 60), -1, cv2.LINE_AA)
    cv2.circle(canvas, at(0.045 * side, head - 0.02), round(0.065 * h), (150, 185, 230), -1, cv2.LINE_AA)
    if side:
        cv2.line(canvas, at(0.08 * side, head), at(0.13 * side, head - 0.015), (130, 165, 215), 2, cv2.LINE_AA)


def rows_of(groups: list[Group], left: bool) -> list[dict[str, Any]]:
    """The rows of a frame; a box over the seam begins left of 0 (`left`) or ends right of the width."""
    rows: list[dict[str, Any]] = []
    for number, group in enumerate(groups):
        first = len(rows)
        for i, person in enumerate(group.people):
            x, y, w, h = person.box
            x = x % WIDTH
            x -= WIDTH if left and x + w > WIDTH else 0
            action = ACTIONS.get(group.kind or "", "walking" if person.pose == "walking" else "standing")
            rows.append(
                {
                    "label_id": f"pedestrian:{len(rows)}",
                    "box": [round(x, 1), round(max(y, 0), 1), round(w, 1), round(min(y + h, HEIGHT) - max(y, 0), 1)],
                    "attributes": {"no_eval": i == 2 and number % 3 == 0, "occlusion": "Fully_visible"},
                    "action_label": {action: 1},
                    "social_group": {"cluster_ID": 100 * number + (0 if group.kind else i), "cluster_stat": 1},
                    "social_activity": {} if group.kind is None else {group.kind: 1},
                    "H-interaction": [],
                }
            )
        if group.kind is not None:
            labels = {group.kind: 1}
            if group.kind in ("conversation", "shaking hands"):
                labels["standing together"] = 2
            for row in rows[first:]:
                others = [r for r in rows[first:] if r is not row]
                row["H-interaction"] = [{"pair": o["label_id"], "box_pair": o["box"], "inter_labels": labels} for o in others]
    return rows


def write_sequence(folder: Path, name: str, frames: int, seed: int, number: int) -> None:
    """One sequence: people drift by a few pixels from frame to frame."""
    images = folder / "images/image_stitched" / name
    labels = folder / "labels/labels_2d_activity_social_stitched"
    for path in (images, labels):
        path.mkdir(parents=True, exist_ok=True)
    groups, content = make_sequence(seed, number), {}
    for f in range(frames):
        moves = rng(seed, number * 1000 + f, "moves")
        for group in groups:
            drift = float(moves.uniform(-6, 6))
            for person in group.people:
                person.x += drift + float(moves.uniform(-1, 1))
        frame = f"{15 * f:06d}.jpg"
        image = draw_frame(groups, seed, number)
        cv2.imwrite(str(images / frame), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
        content[frame] = rows_of(groups, left=number % 2 == 1)
    (labels / f"{name}.json").write_text(json.dumps({"labels": content}))


def write_people(folder: Path, train: int = 100, val: int = 12, frames: int = 2, seed: int = 0) -> None:
    """The dataset: sequences of both splits, and their lists."""
    for split, numbers in (("train", range(train)), ("val", range(train, train + val))):
        names = [f"hall-{n:03d}" for n in numbers]
        for name, number in zip(names, numbers):
            write_sequence(folder, name, frames, seed, number)
        (folder / f"{split}.txt").write_text("".join(f"{n}\n" for n in names))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write synthetic panoramas of people who interact, in JRDB's layout.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--train", type=int, default=100, help="sequences to learn from")
    parser.add_argument("--val", type=int, default=12)
    parser.add_argument("--frames", type=int, default=2, help="of each sequence")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    write_people(args.folder, args.train, args.val, args.frames, args.seed)
    print(f"{args.folder}: {args.train} + {args.val} sequences of {args.frames} panoramas, {WIDTH} x {HEIGHT} pixels")
