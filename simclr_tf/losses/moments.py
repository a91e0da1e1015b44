"""Losses of the moments of each view's projections, without negatives: VICReg and TCR.

Indices: V views per image, R replicas, B images on each, N = R·B images in all, D the width of the
projections. The moments are those of all N images: sums over the replicas, with gradient.
"""

from collections.abc import Sequence

import tensorflow as tf

from simclr_tf.losses.contrastive import (
    LossOutputs,
    all_reduce_sum,
    l2_normalize,
    stack_views,
)
from simclr_tf.losses.nt_xent import nt_xent

_MIN_STD = 1.0  # VICReg's γ
_STD_EPSILON = 1e-4  # VICReg's ε


def vicreg(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    invariance_weight: float = 25.0,
    variance_weight: float = 25.0,
    covariance_weight: float = 1.0,
    more_views: Sequence[tf.Tensor] = (),
) -> LossOutputs:
    """Computes VICReg: variance, invariance and covariance (arXiv 2105.04906 §4.1, Algorithm 1).

    `loss = λ·s + μ·(v(Z) + v(Z')) + ν·(c(Z) + c(Z'))`. s is the mean squared difference of the
    views over images and coordinates, as in Algorithm 1 (eq. 5 sums over the coordinates). v is the
    mean over coordinates of `max(0, 1 - √(Var + 1e-4))`, c the sum of the squared covariances of
    different coordinates divided by D, both with the unbiased moments of the global batch. The
    authors' code halves v. The projections are not normalized; the paper's are 8192 wide.

    With more than two views s is the mean over the pairs of views, v and c twice the mean over the
    views.

    Args:
        z_a, z_b: as in `nt_xent`, with at least two images in the global batch.
        temperature, normalize: of accuracy and entropy; the loss does not depend on them.
        invariance_weight, variance_weight, covariance_weight: λ, μ and ν, at least 0; the defaults
            are the paper's.
        more_views: projections [B, D] of each further view of the same images.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`; the last two do not depend on the loss.

    Raises:
        ValueError: as in `nt_xent`, or the global batch is known to be one image.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = 2.0 * tf.constant([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    >>> loss, accuracy, entropy = st.losses.vicreg(z, z)
    >>> float(loss)  # equal views, standard deviations above 1, no covariance
    0.0
    """
    metrics = _retrieval_metrics(z_a, z_b, temperature, normalize, more_views)
    views = stack_views(z_a, z_b, more_views)
    num_images = _num_images(views)
    if tf.get_static_value(num_images) == 1:
        raise ValueError("vicreg needs a batch of at least 2 images: one has no variance")
    num_views, _, width = views.shape
    # The mean of the squared differences of all pairs, from those to the mean view.
    squares = tf.reduce_sum(tf.square(views - tf.reduce_mean(views, axis=0)))
    invariance = 2.0 * all_reduce_sum(squares) / ((num_views - 1) * num_images * width)

    mean = all_reduce_sum(tf.reduce_sum(views, axis=1, keepdims=True)) / num_images  # [V, 1, D]
    centered = views - mean
    products = tf.matmul(centered, centered, transpose_a=True)
    covariances = all_reduce_sum(products) / (num_images - 1.0)  # [V, D, D]
    std = tf.sqrt(tf.linalg.diag_part(covariances) + _STD_EPSILON)
    variance = 2.0 * tf.reduce_mean(tf.nn.relu(_MIN_STD - std))
    off_diagonal = tf.linalg.set_diag(covariances, tf.zeros_like(std))
    covariance = 2.0 * tf.reduce_sum(tf.square(off_diagonal)) / (num_views * width)
    loss = (
        invariance_weight * invariance + variance_weight * variance + covariance_weight * covariance
    )
    return _share_gradient(loss), *metrics


def tcr(
    z_a: tf.Tensor,
    z_b: tf.Tensor,
    temperature: float = 0.1,
    normalize: bool = True,
    invariance_weight: float = 200.0,
    squared_distortion: float = 0.2,
    more_views: Sequence[tf.Tensor] = (),
) -> LossOutputs:
    """Computes EMP-SSL's loss: total coding rate and cosine to the mean view (arXiv 2304.03977 §3).

    `loss = -mean_v(R(Z_v) + λ·mean_i cos(z_vi, z̄_i))` over the views v and images i, with the rate
    `R(Z) = ½·log det(I + D/(N·ε²)·ZᵀZ)` of the global batch and z̄ the mean over the views of an
    image, all of normalized projections. The rate is largest for projections that fill all
    dimensions equally.

    Args:
        z_a, z_b: as in `nt_xent`.
        temperature, normalize: of accuracy and entropy; the loss does not depend on them.
        invariance_weight: λ ≥ 0; the default is that of the authors' code.
        squared_distortion: ε² > 0; the default is that of the authors' code, where it is "eps".
        more_views: projections [B, D] of each further view of the same images; the paper uses 20
            views or more.

    Returns:
        (loss, accuracy, entropy) as `nt_xent`; the last two do not depend on the loss.

    Raises:
        ValueError: as in `nt_xent`.

    Example:
    >>> import tensorflow as tf
    >>> import simclr_tf as st
    >>> z = tf.eye(4)
    >>> loss, accuracy, entropy = st.losses.tcr(z, z)
    >>> round(float(loss), 2)  # -(½·4·log(1 + 1 / 0.2) + 200)
    -203.58
    """
    metrics = _retrieval_metrics(z_a, z_b, temperature, normalize, more_views)
    views = stack_views(z_a, z_b, more_views, normalize=True)
    num_images = _num_images(views)
    num_views, _, width = views.shape
    cosines = tf.reduce_sum(l2_normalize(tf.reduce_mean(views, axis=0)) * views)
    cosine = all_reduce_sum(cosines) / (num_views * num_images)
    gram = all_reduce_sum(tf.matmul(views, views, transpose_a=True))  # [V, D, D]
    scaled_gram = width / (num_images * squared_distortion) * gram
    # Its eigenvalues lie between 1 and 1 + D / ε².
    log_det = tf.linalg.logdet(tf.eye(width, dtype=views.dtype) + scaled_gram)
    return _share_gradient(-0.5 * tf.reduce_mean(log_det) - invariance_weight * cosine), *metrics


def _num_images(views):
    local = views.shape[1] or tf.shape(views)[1]
    return tf.cast(local * _num_replicas(), views.dtype)


def _retrieval_metrics(z_a, z_b, temperature, normalize, more_views):
    """Returns NT-Xent's accuracy and entropy, without gradient; checks the arguments."""
    z_a, z_b, *more_views = [tf.stop_gradient(z) for z in (z_a, z_b, *more_views)]
    return nt_xent(z_a, z_b, temperature, normalize, more_views=more_views)[1:]


def _share_gradient(loss):
    """Returns the loss with the gradient of one replica: every one has computed all of it."""
    part = loss / _num_replicas()
    return part + tf.stop_gradient(loss - part)


def _num_replicas():
    context = tf.distribute.get_replica_context()
    return context.num_replicas_in_sync if context else 1
