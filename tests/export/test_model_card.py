"""The model card."""

import tf_keras as keras

from simclr_tf.exporter import make_model_card


def _card(**changes):
    encoder = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    )
    data = {"dataset": "cifar10", "data_dir": "/home/someone/data"}
    settings = {"learning_rate": 0.3, "data": data, "checkpoint": None, "sk_ratio": None}
    arguments = {"architecture": "ResNet-18", "dataset": "cifar10, split train", "step": 12345}
    arguments |= {"image_size": 8, "settings": settings}
    return make_model_card(encoder, **(arguments | changes))


def test_card_describes_input_output_and_evaluations():
    card = _card(evaluations="| knn | 60.0 |")
    for text in (
        *("ResNet-18; 20 trainable parameters", "12,345 steps", "Apache-2.0", "| knn | 60.0 |"),
        *("`[N, 8, 8, 3]`, RGB in [0, 1]", "float32 `[N, 5]`"),
        *("| `learning_rate` | `0.3` |", "| `data.dataset` | `cifar10` |"),
    ):
        assert text in card


def test_card_omits_paths_and_unset_settings():
    card = _card()
    for absent in ("someone", "data_dir", "checkpoint", "sk_ratio"):
        assert absent not in card
    assert "None yet." in card


def test_card_contains_only_the_name_of_a_folder():
    folder = "folder:/home/someone/photos"
    card = _card(dataset=f"{folder}, split train", settings={"data": {"dataset": folder}})
    assert "someone" not in card
    assert "pretrained on | folder:photos, split train" in card
    assert "| `data.dataset` | `folder:photos` |" in card


def test_card_contains_three_lines_of_code():
    code = _card().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 3
    compile(code, "card", "exec")


def test_card_lists_the_classes_of_a_classifier():
    names = [f"class{i}" for i in range(25)]
    card = _card(classifier="logistic on cifar10", class_names=names)
    assert "25 classes" in card and "`class19` and 5 more" in card and "`class20`" not in card
    assert "logistic on cifar10" in card
    assert "## Classifier" not in _card()


def test_card_gives_the_number_of_labels_of_a_fine_tuned_encoder():
    assert "| trained on | cifar10, split train, with 500 labels, 12,345 steps |" in _card(
        num_labels=500, training_verb="trained"
    )
    assert "| pretrained on | cifar10, split train, without labels, 12,345 steps |" in _card()
