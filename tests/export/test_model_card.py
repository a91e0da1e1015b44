"""The model card."""

import tf_keras as keras

from simclr_tf.exporter import make_model_card


def _card(**changes):
    encoder = keras.Sequential(
        [keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(5)]
    )
    settings = {
        "learning_rate": 0.3,
        "data": {"dataset": "cifar10", "data_dir": "/home/someone/data"},
        "checkpoint": None,
        "sk_ratio": None,
    }
    arguments = {
        "architecture": "ResNet-18",
        "dataset": "cifar10, split train",
        "step": 12345,
        "image_size": 8,
        "settings": settings,
    }
    return make_model_card(encoder, **(arguments | changes))


def test_what_a_user_needs_is_there():
    card = _card(evaluations="| knn | 60.0 |")
    assert "ResNet-18; 20 trainable parameters" in card
    assert "12,345 steps" in card
    assert "`[N, 8, 8, 3]`, RGB in [0, 1]" in card
    assert "float32 `[N, 5]`" in card
    assert "| knn | 60.0 |" in card
    assert "| `learning_rate` | `0.3` |" in card
    assert "| `data.dataset` | `cifar10` |" in card
    assert "Apache-2.0" in card


def test_places_and_unset_settings_are_left_out():
    card = _card()
    for absent in ("someone", "data_dir", "checkpoint", "sk_ratio"):
        assert absent not in card
    assert "None yet." in card


def test_of_a_folder_only_the_name_is_told():
    folder = "folder:/home/someone/photos"
    card = _card(dataset=f"{folder}, split train", settings={"data": {"dataset": folder}})
    assert "someone" not in card
    assert "pretrained on | folder:photos, split train" in card
    assert "| `data.dataset` | `folder:photos` |" in card


def test_the_code_it_shows_is_three_lines():
    code = _card().split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 3
    compile(code, "card", "exec")


def test_a_classifier_is_told_with_its_classes():
    names = [f"class{i}" for i in range(25)]
    card = _card(classifier="logistic on cifar10", class_names=names)
    assert "25 classes" in card and "`class19` and 5 more" in card and "`class20`" not in card
    assert "logistic on cifar10" in card
    assert "## Classifier" not in _card()


def test_a_fine_tuned_encoder_is_not_told_to_be_without_labels():
    assert "| trained on | cifar10, split train, with 500 labels, 12,345 steps |" in _card(
        num_labels=500, training_verb="trained"
    )
    assert "| pretrained on | cifar10, split train, without labels, 12,345 steps |" in _card()
