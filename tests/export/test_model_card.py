"""The model card."""

import tf_keras as keras
from simclr_tf.export import model_card


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
    return model_card(encoder, **(arguments | changes))


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
