"""TensorFlow Hub and tf_keras: the encoder as a layer, frozen and then fine-tuned.

python hub_keras_layer.py EXPORT FOLDER --image_size=32
"""

import numpy as np
import tensorflow_hub as hub
import tf_keras as keras
from folder import parse_args, print_and_save, read_folder

options = parse_args(__doc__, ("--epochs", 10, "of each training"))
keras.utils.set_random_seed(0)
images, labels, names = read_folder(options.folder, options.image_size)
print_and_save(options, hub.load(options.export)(images))


def train(trainable):
    encoder = hub.KerasLayer(options.export, trainable=trainable)
    model = keras.Sequential(
        [keras.Input(images.shape[1:]), encoder, keras.layers.Dense(len(names))]
    )
    model.compile(
        keras.optimizers.SGD(0.05, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    before = [variable.numpy() for variable in encoder.variables]
    losses = model.fit(images, labels, epochs=options.epochs, verbose=0).history["loss"]
    moved = sum(
        (old != new.numpy()).any() for old, new in zip(before, encoder.variables, strict=True)
    )
    print(
        f"trainable={trainable}: loss {losses[0]:.3f} → {losses[-1]:.3f}, "
        f"{moved} of {len(before)} variables of the encoder moved, batch statistics included"
    )
    return model


train(trainable=False)
model = train(trainable=True)
accuracy = np.mean(model.predict(images, verbose=0).argmax(axis=1) == labels)
print(f"accuracy on the images that were learned: {accuracy:.2f}")
