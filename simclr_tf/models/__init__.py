"""The encoder, the projection head, and the models that train them."""

from simclr_tf.models.classifier import Classifier
from simclr_tf.models.distilled_classifier import Student
from simclr_tf.models.keras_cv_backbones import backbone_encoder
from simclr_tf.models.projection_head import projection_head
from simclr_tf.models.resnet import ResNet
from simclr_tf.models.simclr import SimCLR

__all__ = ["Classifier", "ResNet", "SimCLR", "Student", "backbone_encoder", "projection_head"]
