"""NT-Xent, the normalized temperature-scaled cross-entropy loss [v1 eq. 1]."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras as keras

from simclr_tf.losses.contrastive import (
    LossOutputs,
    anchor_losses,
    blockwise_nt_xent,
    gather_views,
    reduce_mean_across_replicas,
    stack_views,
)

_MAX_DENSE_LOGITS = 2**24  # 64 MiB in float32; blocks use a quarter of it


def nt_xent(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    block_size: int | None = None,
    more_views: Sequence[tf.Tensor] = (),
) -> LossOutputs:
    """Computes NT-Xent, contrastive accuracy and entropy of a batch [v1 eq. 1].

    For each of the 2N anchors the positive is the other view of the same image and the 2N - 2
    others are negatives: `loss = mean_i(-z_i·z_p(i)/τ + log Σ_{k≠i} exp(z_i·z_k/τ))`.

    With V > 2 views per image, each of the V·N anchors has V - 1 positives P(i), the other views of
    its image: `loss = mean_i mean_{p∈P(i)}(-z_i·z_p/τ + log Σ_{k≠i} exp(z_i·z_k/τ))`. It is
    L_out of SupCon (arXiv 2004.11362, eq. 2) with every image as its own class: the mean over all
    ordered pairs of views, as for multiple crops in Poly-View (arXiv 2403.05490), but with the
    other positives in the sum over k. So it is at least log(V - 1).

    In a replica context the negatives are those of the global batch of N = R·B images. The value is
    the mean over its V·N anchors, equal on every replica. The gradient on a replica is the part of
    that replica: the *sum* over replicas is the gradient of the global mean.

    The dense form holds all [V·B, V·N] logits and what their gradient needs. In blocks only
    [block_size, V·N] exist at a time, and the gradient is computed in the forward pass: the same
    value and gradient, in as many multiplications.

    Args:
        z_a, z_b: floating [B, D], projections of the first and of the second views, in the same
            order of images. Computed in float32, or in float64 where the input is.
        temperature: τ > 0.
        normalize: whether the projections are L2-normalized first.
        block_size: anchors per block, which need not divide V·B; 0: the dense form; None: blocks
            where the dense logits would exceed 64 MiB.
        more_views: projections [B, D] of the third views, the fourth, …, if V is above 2.

    Returns:
        (loss, accuracy, entropy), scalars in the computing precision. The accuracy is the fraction
        of pairs of an anchor and a positive with a logit above those of all views of other images;
        the entropy is that of the softmax over all V·N - 1 logits, in nats, averaged over the
        anchors.

    Raises:
        ValueError: `temperature` is not above 0, `block_size` is negative or the shapes differ.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = tf.reshape(tf.sin(1.3 * tf.range(32.0) + 0.5), (8, 4))
    >>> loss, accuracy, entropy = st.losses.nt_xent(z[:4], z[4:], temperature=0.5)
    >>> round(float(loss), 4)
    3.0767
    >>> loss, accuracy, entropy = st.losses.nt_xent(z[:2], z[2:4], more_views=[z[4:6], z[6:]])
    """
    if block_size is not None and block_size < 0:
        raise ValueError(f"block_size must be None, 0 or positive, got {block_size}")
    batch = gather_views(stack_views(z_a, z_b, more_views, normalize), temperature)
    if block_size is None:
        block_size = choose_block_size(batch.anchors.shape[0], batch.candidates.shape[0])
    if block_size:
        sums = blockwise_nt_xent(*batch, block_size)
    else:
        sums = tf.reduce_sum(tf.stack(anchor_losses(*batch)[0]), axis=1)
    return reduce_mean_across_replicas(sums, batch)


@keras.utils.register_keras_serializable(package="simclr_tf")
class NTXent(keras.losses.Loss):
    """NT-Xent as a Keras loss of stacked projections [v1 eq. 1].

    Called as `loss(y_true, y_pred)`: `y_pred` [V·N, D] holds the projections of the first views of
    all images, then those of the second views, …; `y_true` is ignored. Returns the scalar loss of
    `nt_xent`, with the same values and gradients under a distribution strategy.

    Args:
        temperature, normalize, block_size: as in `nt_xent`.
        name: of the Keras loss.
        num_views: V, at least 2.

    Raises:
        ValueError: an argument lies outside its range.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = tf.reshape(tf.sin(1.3 * tf.range(32.0) + 0.5), (8, 4))
    >>> round(float(st.losses.NTXent(temperature=0.5)(None, z)), 4)
    3.0767
    """

    def __init__(
        self,
        temperature: float = 0.1,
        normalize: bool = True,
        block_size: int | None = None,
        name: str = "nt_xent",
        num_views: int = 2,
    ):
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        if block_size is not None and block_size < 0:
            raise ValueError(f"block_size must be None, 0 or positive, got {block_size}")
        if num_views < 2:
            raise ValueError(f"num_views must be at least 2, got {num_views}")
        # Keras divides other reductions by the number of replicas, and the gradients of `nt_xent`
        # are already parts of a sum.
        super().__init__(reduction=keras.losses.Reduction.SUM, name=name)
        self.temperature = temperature
        self.normalize = normalize
        self.block_size = block_size
        self.num_views = num_views

    def call(self, y_true: Any, y_pred: tf.Tensor) -> tf.Tensor:
        del y_true
        z_a, z_b, *more_views = tf.split(y_pred, self.num_views)
        settings = self.temperature, self.normalize, self.block_size
        loss, _, _ = nt_xent(z_a, z_b, *settings, more_views)
        return loss

    def get_config(self) -> dict[str, Any]:
        return {
            "temperature": self.temperature,
            "normalize": self.normalize,
            "block_size": self.block_size,
            "name": self.name,
            "num_views": self.num_views,
        }


def choose_block_size(
    rows: int | None, columns: int | None, max_dense_logits: int = _MAX_DENSE_LOGITS
) -> int:
    """Returns 0 (dense) for up to `max_dense_logits` logits or unknown sizes, else a block size."""
    if rows is None or columns is None or rows * columns <= max_dense_logits:
        return 0
    return max(1, max_dense_logits // 4 // columns)
