"""NT-Logistic, the logistic loss on cosines over a temperature [v1 Table 2]."""

import tensorflow as tf

from simclr_tf.losses.pairs import Results, dense_loss
from simclr_tf.losses.triplet import over_triplets


def nt_logistic(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    margin: float = 0.8,
    semi_hard: bool = False,
) -> Results:
    """Computes how far each pair is told to be one, and each negative pair to be none.

    For anchor u with positive v⁺ and negatives v⁻, the 2N - 2 other views of the global batch:
    `-log σ(u·v⁺/τ) - mean log σ(-u·v⁻/τ)`, the mean over the negatives; then the mean over all 2N
    anchors. With `semi_hard` the mean is over the negatives with `u·v⁺ - margin < u·v⁻ < u·v⁺`, and
    an anchor without any has the loss 0, its positive's term included.

    In its experiments the paper took negatives of one view only [v1 §B.10]. It does not say what a
    margin is to a loss without one; here it is the margin triplet loss's.

    Args:
        z_a, z_b, temperature, normalize: as in `nt_xent`.
        margin: above 0; used by `semi_hard` alone.
        semi_hard: whether to mine the negatives.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`, and as there under replicas; the last two do not
        depend on the loss. All [2B, 2N] logits are held at once.

    Raises:
        ValueError: as `nt_xent`, or `margin` is not above 0 where it is used.
    """
    if semi_hard and not margin > 0:
        raise ValueError(f"margin must be above 0 with semi_hard, not {margin}")

    def term(positive, negative):
        return tf.nn.softplus(-positive) + tf.nn.softplus(negative)

    rule = over_triplets(term, temperature, margin if semi_hard else None)
    return dense_loss(z_a, z_b, temperature, normalize, rule)
