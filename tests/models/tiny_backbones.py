"""The smallest backbone of each kind that KerasCV makes, by its arguments."""

_ONE_OF_EACH = {"stackwise_kernel_sizes": [3, 3], "stackwise_num_repeats": [2, 1]}
_EFFICIENT = {
    **_ONE_OF_EACH,
    "width_coefficient": 0.25,
    "depth_coefficient": 1.0,
    "stackwise_input_filters": [16, 16],
    "stackwise_output_filters": [16, 16],
    "stackwise_expansion_ratios": [1, 4],
    "stackwise_strides": [1, 2],
}
TINY = {
    "CSPDarkNetBackbone": {"stackwise_channels": [8, 8], "stackwise_depth": [1, 1]},
    "DenseNetBackbone": {"stackwise_num_repeats": [1], "growth_rate": 4},
    # Without a width: its stem has 32 filters whatever the width.
    "EfficientNetLiteBackbone": {
        **_EFFICIENT,
        "width_coefficient": 1.0,
        "stackwise_input_filters": [32, 16],
    },
    "EfficientNetV1Backbone": {
        **_EFFICIENT,
        "stackwise_squeeze_and_excite_ratios": [0.25, 0.25],
    },
    "EfficientNetV2Backbone": {
        **_EFFICIENT,
        "stackwise_squeeze_and_excite_ratios": [0, 0.25],
        "stackwise_conv_types": ["fused", "unfused"],
    },
    "MobileNetV3Backbone": {
        "stackwise_expansion": [1, 4],
        "stackwise_filters": [8, 16],
        "stackwise_kernel_size": [3, 3],
        "stackwise_stride": [2, 2],
        "stackwise_se_ratio": [0.25, None],
        "stackwise_activation": ["relu", "hard_swish"],
    },
    "ResNetBackbone": {
        "stackwise_filters": [64, 8],
        "stackwise_blocks": [1, 1],
        "stackwise_strides": [1, 2],
        "block_type": "basic_block",
    },
    "ResNetV2Backbone": {
        "stackwise_filters": [64, 8],
        "stackwise_blocks": [2, 2],
        "stackwise_strides": [1, 2],
        "block_type": "basic_block",
    },
    "ViTDetBackbone": {
        "input_shape": [32, 32, 3],
        "patch_size": 8,
        "embed_dim": 8,
        "depth": 1,
        "mlp_dim": 8,
        "num_heads": 2,
        "out_chans": 8,
        "window_size": 2,
        "global_attention_indices": [0],
    },
}


def description(name, **changes):
    """As `describe_preset` returns it, but for the width."""
    return {"preset": "tiny", "class_name": name, "config": {**TINY[name], **changes}}
