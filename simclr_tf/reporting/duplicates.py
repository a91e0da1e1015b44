"""Report section of exact copies and near-duplicates, and the CSV file of their pairs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from simclr_tf.data import batches_at, decode_errors_name_image
from simclr_tf.data.base import content_hash
from simclr_tf.embedding.nearest import nearest_others
from simclr_tf.evaluation.knn import l2_normalize_rows
from simclr_tf.reporting.embedded_split import EmbeddedSplit, jpeg_data_uri
from simclr_tf.reporting.image_sections import make_pair
from simclr_tf.utils.files import write_csv

_NUM_SHOWN = 12
_MAX_NAMES = 6  # of one group of copies
_MAX_CANDIDATES = 200  # pairs whose pixels are compared
_MAX_HASHED = 4_000  # images
_MIN_COPY_COSINE = 0.9999  # copies have the same features, except for the order of additions
_BATCH_SIZE = 256
_PIXEL_TOLERANCE = 1.0  # mean absolute difference of uint8 below which two images are the same


def find_duplicates(
    splits: list[EmbeddedSplit], image_size: int, csv_path: Path | None = None
) -> dict[str, Any]:
    """Finds exact copies, and the most similar pairs of other images, within and across splits.

    Copies have the same stored pixels. A group of them counts as one image in the pairs. All pairs
    are written to `csv_path`.

    Returns {"copies": groups of copies, "num_copies": number of images that copy another one,
    "num_groups", "pairs": the most similar pairs, "compared": number of pairs whose pixels were
    compared, "same": of these with nearly the same pixels, "across": with an image in each split,
    "images": description, "csv": name of the file}.
    """
    joined = _Joined(splits)
    pairs, cosines = _most_similar_pairs(joined.features)
    is_copy = cosines >= _MIN_COPY_COSINE
    groups = joined.find_copies(np.unique(pairs[is_copy])[:_MAX_HASHED])
    if groups:
        copies = np.concatenate([group[1:] for group in groups])
        originals = np.setdiff1d(np.arange(len(joined.features)), copies)
        pairs, cosines = _most_similar_pairs(joined.features[originals])
        pairs = originals[pairs]
    pairs, cosines = pairs[:_MAX_CANDIDATES], cosines[:_MAX_CANDIDATES]

    starts = joined.starts
    pixels = joined.images(np.unique(pairs), image_size)
    differences = [
        float(np.abs(pixels[a].astype(np.float32) - pixels[b]).mean()) for a, b in pairs.tolist()
    ]
    across = (pairs[:, 0] < starts[1]) & (pairs[:, 1] >= starts[1])
    shown_pairs, shown_groups = pairs[:_NUM_SHOWN], groups[:_NUM_SHOWN]
    firsts = np.array([group[0] for group in shown_groups], int)
    pictures = joined.pictures(np.union1d(shown_pairs.ravel(), firsts).astype(int))
    if csv_path is not None:
        header = ["kind", "cosine", "pixel_difference", "split_a", "image_a", "split_b", "image_b"]
        rows = [
            ("copy", "1.0000", "0.00", *joined.names([group[0]])[0], *name)
            for group in groups
            for name in joined.names(group[1:])
        ]
        rows += [
            ("similar", f"{cosine:.4f}", f"{difference:.2f}", *first, *second)
            for cosine, difference, (first, second) in zip(
                cosines, differences, map(joined.names, pairs.tolist()), strict=True
            )
        ]
        write_csv(csv_path, [header, *rows])
    return {
        "copies": [_show_group(joined, group, pictures[group[0]]) for group in shown_groups],
        "num_copies": sum(len(group) - 1 for group in groups),
        "num_groups": len(groups),
        "pairs": [
            make_pair(
                [pictures[position] for position in pair],
                tuple(name for _, name in joined.names(pair)),
                f"cosine {cosine:.4f}, pixels differ by {difference:.1f} of 255",
                "in both splits" if is_across else "",
            )
            for pair, cosine, difference, is_across in zip(
                shown_pairs.tolist(), cosines, differences, across, strict=False
            )
        ],
        "compared": len(pairs),
        "same": sum(difference < _PIXEL_TOLERANCE for difference in differences),
        "across": int(across.sum()),
        "images": " and ".join(map(str, splits)),
        "csv": "" if csv_path is None else csv_path.name,
    }


def _show_group(joined: "_Joined", group: list[int], picture: np.ndarray) -> dict[str, Any]:
    names = joined.names(group)
    more = len(names) - _MAX_NAMES
    shown = [name for _, name in names[:_MAX_NAMES]] + ([f"and {more:,} more"] if more > 0 else [])
    return {
        "uri": jpeg_data_uri(picture),
        "names": shown,
        "value": f"{len(names):,} copies",
        "note": "in both splits" if len({split for split, _ in names}) > 1 else "",
    }


def _most_similar_pairs(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pairs [P, 2] of an image and its nearest other one, by falling cosine [P]."""
    if len(features) < 2:
        return np.empty((0, 2), int), np.empty(0)
    indices = np.arange(len(features))
    partner = nearest_others(features, indices, 1)[1][:, 0]
    pairs = np.unique(np.sort(np.stack([indices, partner], axis=1), axis=1), axis=0)
    unit = l2_normalize_rows(features)
    cosines = np.einsum("nd,nd->n", unit[pairs[:, 0]], unit[pairs[:, 1]])
    order = np.argsort(-cosines, kind="stable")
    return pairs[order], cosines[order]


class _Joined:
    """The images of one or two splits, with positions in both of them together."""

    def __init__(self, splits: list[EmbeddedSplit]):
        self._splits = splits
        self.features = np.concatenate([split.rows.features for split in splits])
        self.starts = np.cumsum([0, *map(len, splits)])

    def _parts(self, positions: np.ndarray) -> Iterator[tuple[EmbeddedSplit, int, np.ndarray]]:
        """Yields (split, its first position, positions in it) of ascending positions."""
        for split, start in zip(self._splits, self.starts.tolist(), strict=False):
            local = positions[(positions >= start) & (positions < start + len(split))] - start
            if len(local):
                yield split, start, local

    def find_copies(self, candidates: np.ndarray) -> list[list[int]]:
        """Returns groups of candidates with the same pixels, the largest first."""
        groups: dict[str, list[int]] = {}
        for split, start, local in self._parts(candidates):
            source = split.rows.source
            hashes: list[str] = []
            with decode_errors_name_image(source):
                for batch in batches_at(source, local, _BATCH_SIZE).as_numpy_iterator():
                    aspects = batch.get("aspect", np.ones(len(batch["image"])))
                    hashes += map(content_hash, batch["image"], aspects)
            for position, key in zip((local + start).tolist(), hashes, strict=True):
                groups.setdefault(key, []).append(position)
        return sorted((group for group in groups.values() if len(group) > 1), key=len, reverse=True)

    def images(self, positions: np.ndarray, size: int) -> dict[int, np.ndarray]:
        """Returns images as the encoder receives them, by position."""
        return {
            position + start: image
            for split, start, local in self._parts(positions)
            for position, image in split.rows.images(local, size).items()
        }

    def pictures(self, positions: np.ndarray) -> dict[int, np.ndarray]:
        """Returns images as the report shows them, by position."""
        return {
            position + start: image
            for split, start, local in self._parts(positions)
            for position, image in split.pictures(local).items()
        }

    def names(self, positions: list[int]) -> list[tuple[str, str]]:
        """Returns (split, image ID) of each position."""
        names = []
        for position in positions:
            i = int(np.searchsorted(self.starts, position, side="right")) - 1
            local = np.array([position - self.starts[i]])
            names.append((self._splits[i].split, self._splits[i].rows.image_ids(local)[0]))
        return names
