"""Encoders, projection head, and the Keras models that train them."""

from simclr_tf.models.classifier import Classifier
from simclr_tf.models.distilled_classifier import DistilledClassifier
from simclr_tf.models.keras_cv_backbones import backbone_encoder
from simclr_tf.models.projection_head import ProjectionHead, build_projection_head
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLR

__all__ = [
    "Classifier",
    "DistilledClassifier",
    "ProjectionHead",
    "ResNet",
    "SimCLR",
    "backbone_encoder",
    "build_projection_head",
]
