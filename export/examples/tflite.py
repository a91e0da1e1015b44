"""TensorFlow Lite: features of the images, in batches.

simclr-tf export --model_dir=RUN --format=tflite --output=encoder.tflite
python tflite.py encoder.tflite FOLDER --image_size=32

On a device take LiteRT: `from ai_edge_litert.interpreter import Interpreter`, the rest is the same.
"""

import numpy as np
import tensorflow as tf
from folder import parse_args, print_and_save, read_folder

options = parse_args(__doc__, ("--batch_size", 16, "images at a time"))
images, _, _ = read_folder(options.folder, options.image_size)

encoder = tf.lite.Interpreter(options.export).get_signature_runner("serving_default")
starts = range(0, len(images), options.batch_size)
batches = [images[start : start + options.batch_size] for start in starts]
print_and_save(options, np.concatenate([encoder(images=batch)["features"] for batch in batches]))
