"""scikit-learn on what simclr-tf embed wrote: no TensorFlow at all.

simclr-tf embed --model_dir=RUN --output=EMBEDDED
python scikit_learn.py EMBEDDED
"""

import csv
import sys
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

embedded = Path(sys.argv[1])
features = np.load(embedded / "features.npy", mmap_mode="r")
with (embedded / "ids.csv").open(encoding="utf-8", newline="") as file:
    labels = [row["label"] for row in csv.DictReader(file)]
print(f"features: {features.dtype} {list(features.shape)}")

model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
scores = cross_val_score(model, features, labels, cv=3)
print(f"accuracy in 3-fold cross-validation: {scores.mean():.2f}")
