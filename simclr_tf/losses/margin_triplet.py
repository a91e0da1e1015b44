"""The margin triplet loss on cosines [v1 Table 2]."""

import tensorflow as tf

from simclr_tf.losses.pairs import Results, dense_loss
from simclr_tf.losses.triplet import over_triplets


def margin_triplet(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    margin: float = 0.8,
    semi_hard: bool = False,
) -> Results:
    """Computes by how much the positives fail to be nearer than the negatives by a margin.

    For anchor u with positive v⁺ and negatives v⁻, the 2N - 2 other views of the global batch:
    `mean max(u·v⁻ - u·v⁺ + margin, 0)` over the negatives, those at 0 included; then the mean over
    all 2N anchors. With `semi_hard` the mean is over the negatives with
    `u·v⁺ - margin < u·v⁻ < u·v⁺`, and an anchor without any has the loss 0.

    The paper tried margins of 0, 0.4, 0.8 and 1.6, on negatives of one view only [v1 §B.10].

    Args:
        z_a, z_b, normalize: as in `nt_xent`.
        temperature: of accuracy and entropy; the loss does not depend on it.
        margin: at least 0, with `semi_hard` above; of normalised projections, up to 2 means
            something.
        semi_hard: whether to mine the negatives.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`, and as there under replicas; the last two do not
        depend on the loss. All [2B, 2N] logits are held at once.

    Raises:
        ValueError: as `nt_xent`, or `margin` is too low.
    """
    if margin < 0 or (semi_hard and margin == 0):
        least = "above 0 with semi_hard" if semi_hard else "at least 0"
        raise ValueError(f"margin must be {least}, not {margin}")

    def term(positive, negative):
        return tf.nn.relu(temperature * (negative - positive) + margin)

    rule = over_triplets(term, temperature, margin if semi_hard else None)
    return dense_loss(z_a, z_b, temperature, normalize, rule)
