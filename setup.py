"""Packaging: the library, its exporter (simclr_tf.exporter) and its recipes (simclr_tf.flags)."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

EXTRAS = {
    "gpu": ["tensorflow[and-cuda]>=2.21,<2.22"],
    "keras-cv": ["keras-cv>=0.9,<0.10"],
    # The last release: it has wheels up to Python 3.11, for macOS and for Linux on x86-64.
    "addons": [
        'tensorflow-addons>=0.23,<0.24; python_version < "3.12" and (sys_platform == "darwin"'
        ' or (sys_platform == "linux" and platform_machine == "x86_64"))'
    ],
    "umap": ["umap-learn>=0.5.6"],
    "dev": [
        "furo>=2025.7.19",
        "import-linter>=2.5",
        "mypy>=1.11",
        "myst-nb>=1.3",
        "pytest>=8.0",
        "pytest-xdist>=3.8",
        "ruff>=0.6",
        "selenium>=4.25",
        "sphinx>=8.1",
        "tensorflow-serving-api>=2.20",
    ],
}

setup(
    name="simclr_tf",
    # Also in simclr_tf/__init__.py, CITATION.cff and CHANGELOG.md; a test compares them.
    version="0.1.0",
    description="SimCLR for TensorFlow 2 and Keras: contrastive learning of visual "
    "representations without labels",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    author="The simclr_tf authors",
    keywords="simclr contrastive-learning self-supervised-learning tensorflow keras",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    python_requires=">=3.11,<3.14",
    packages=[
        *find_packages(include=["simclr_tf", "simclr_tf.*"]),
        "simclr_tf.exporter",
        "simclr_tf.flags",
    ],
    package_dir={"simclr_tf.exporter": "export", "simclr_tf.flags": "flags"},
    package_data={
        "simclr_tf": ["py.typed"],
        "simclr_tf.flags": ["*.flags"],
        "simclr_tf.reporting": ["templates/*"],
    },
    install_requires=[
        "absl-py>=2.1",
        # tensorflow-datasets imports it without declaring it.
        "importlib_resources>=6.0",
        "jinja2>=3.1",
        "matplotlib>=3.8",
        "numpy>=1.26",
        "plotly>=6.0",
        "psutil>=5.9",
        "pillow>=10.0",
        "pyarrow>=15.0",
        "scikit-learn>=1.4",
        # tensorflow-hub imports pkg_resources, which setuptools 82 no longer has.
        "setuptools<82",
        "tabulate>=0.9",
        "tensorboard>=2.20,<2.22",
        "tensorflow>=2.21,<2.22",
        "tensorflow-datasets>=4.9.10,<5",
        "tensorflow-hub>=0.16",
        "tf_keras>=2.21,<2.22",
        "threadpoolctl>=3.1",
        "tqdm>=4.66",
    ],
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["simclr-tf=simclr_tf.cli.main:console"]},
)
