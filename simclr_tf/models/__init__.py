"""The encoder, the projection head, and the model that trains them."""

from simclr_tf.models.projection_head import projection_head
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLR

__all__ = ["ResNet", "SimCLR", "projection_head"]
