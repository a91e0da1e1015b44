"""KerasCV in front: its preprocessing layers in the pipeline of a classifier on the encoder.

python keras_cv_preprocessing.py EXPORT FOLDER --image_size=32
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # KerasCV asks for it, before TensorFlow is imported

import keras_cv
import tensorflow as tf
import tensorflow_hub as hub
import tf_keras as keras
from folder import parse_args, print_and_save, read_folder

options = parse_args(__doc__, ("--epochs", 10, "of training"))
images, labels, names = read_folder(options.folder, options.image_size)

encoder = hub.KerasLayer(options.export, trainable=False)
print_and_save(options, encoder(images))

# KerasCV's layers act in inference too: they belong into the pipeline, not into the model.
augment = keras_cv.layers.Augmenter(
    [keras_cv.layers.RandomFlip(), keras_cv.layers.RandomColorDegeneration(factor=0.5)]
)
batches = tf.data.Dataset.from_tensor_slices({"images": images, "labels": labels})
batches = batches.shuffle(len(images)).batch(32).map(augment)
batches = batches.map(lambda batch: (batch["images"], batch["labels"]))

model = keras.Sequential(
    [
        keras.Input(images.shape[1:]),
        encoder,
        keras.layers.BatchNormalization(),
        keras.layers.Dense(len(names)),
    ]
)
model.compile(
    keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
losses = model.fit(batches, epochs=options.epochs, verbose=0).history["loss"]
print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
