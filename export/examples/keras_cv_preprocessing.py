"""KerasCV in front: its preprocessing layers and the encoder in one tf_keras model.

python keras_cv_preprocessing.py EXPORT FOLDER --image_size=32
"""

import os

os.environ["TF_USE_LEGACY_KERAS"] = "1"  # KerasCV asks for it, before TensorFlow is imported

import keras_cv
import tensorflow_hub as hub
import tf_keras as keras
from folder import arguments, read_folder, save

options = arguments(__doc__, ("--epochs", 10, "of training"))
images, labels, names = read_folder(options.folder, options.image_size)

encoder = hub.KerasLayer(options.export, trainable=False)
model = keras.Sequential(
    [
        keras.Input(images.shape[1:]),
        keras_cv.layers.RandomFlip(),  # acts in training alone
        keras_cv.layers.RandomColorDegeneration(factor=0.5),
        encoder,
    ]
)
save(options, model(images, training=False))

model.add(keras.layers.BatchNormalization())
model.add(keras.layers.Dense(len(names)))
model.compile(
    keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True)
)
losses = model.fit(images, labels, epochs=options.epochs, verbose=0).history["loss"]
print(f"loss {losses[0]:.3f} → {losses[-1]:.3f}")
