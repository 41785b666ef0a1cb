"""Networks of public packages with random weights, by name: what `coverage.py` tries.

A name is `package:network`. Every maker returns a module and example inputs of two images (or one list of images);
images are small, since what is tried is whether a network can be followed, not how fast it is.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

import prunesearch as ps

Made = tuple[nn.Module, Any]


def images(size: int = 64, channels: int = 3, dims: int = 2) -> torch.Tensor:
    """Two images of (channels, size, ...)."""
    return torch.randn(2, channels, *[size] * dims)


def zoo(name: str) -> Made:
    """Our own."""
    return ps.make_model(name), images(32)


# --- torchvision ------------------------------------------------------------------------------------------------------

_VISION_SIZES = {"vit": 224, "maxvit": 224, "inception": 299, "mvit": 224, "raft": 128}
_LISTED = ("fasterrcnn", "fcos", "keypointrcnn", "maskrcnn", "retinanet", "ssd")


def torchvision(name: str) -> Made:
    """Classifiers, segmentation, detectors, video and optical flow."""
    from torchvision import models

    size = next((size for prefix, size in _VISION_SIZES.items() if name.startswith(prefix)), 64)
    if name.startswith(_LISTED):
        sizes = {} if name.startswith("ssd") else {"min_size": 96, "max_size": 128}
        model = models.get_model(name, weights=None, weights_backbone=None, num_classes=5, **sizes)
        return model, ([torch.rand(3, 64, 64)],)
    if name in models.list_models(module=models.segmentation):
        return models.get_model(name, weights=None, weights_backbone=None), images(64)
    if name in models.list_models(module=models.optical_flow):
        return models.get_model(name, weights=None), (images(size), images(size))
    if name in models.list_models(module=models.video):
        frames, side = (16, 224) if name.startswith(("mvit", "s3d")) else (16, 64)
        return models.get_model(name, weights=None), torch.randn(2, 3, frames, side, side)
    return models.get_model(name, weights=None), images(size)


# --- timm -------------------------------------------------------------------------------------------------------------

_TIMM_SIZES = {"edgenext": 160, "tresnet": 160, "xception": 160, "inception": 160, "bat": 256}


def timm(name: str) -> Made:
    """Image classifiers; what was made for one size gets it."""
    module = importlib.import_module("timm")
    size = next((size for prefix, size in _TIMM_SIZES.items() if name.startswith(prefix)), 64)
    if "_patch16_" in name:
        try:
            return module.create_model(name, img_size=size), images(size)
        except TypeError:  # takes no such argument
            pass
    model = module.create_model(name)
    config = model.default_cfg
    is_fixed = config.get("fixed_input_size") or any(hasattr(child, "pos_embed") for child in model.modules())
    return model, images(config["input_size"][-1] if is_fixed else size)


# --- ultralytics ------------------------------------------------------------------------------------------------------


def ultralytics(name: str) -> Made:
    """Detectors and their kin, from the package's YAML files."""
    tasks = importlib.import_module("ultralytics.nn.tasks")
    kinds = {
        "-cls": tasks.ClassificationModel,
        "-seg": tasks.SegmentationModel,
        "-pose": tasks.PoseModel,
        "-obb": tasks.OBBModel,
        "rtdetr": tasks.RTDETRDetectionModel,
    }
    kind = next((kind for mark, kind in kinds.items() if mark in name), tasks.DetectionModel)
    return kind(f"{name}.yaml", verbose=False), images(64)


# --- segmentation_models_pytorch --------------------------------------------------------------------------------------


def segmentation(name: str) -> Made:
    """`Architecture/encoder`."""
    module = importlib.import_module("segmentation_models_pytorch")
    architecture, _, encoder = name.partition("/")
    return module.create_model(architecture, encoder_name=encoder, encoder_weights=None, classes=4), images(
        128 if architecture == "pan" else 64
    )


# --- monai ------------------------------------------------------------------------------------------------------------

_MONAI: Mapping[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "UNet": (
        {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (16, 32, 64), "strides": (2, 2),
         "num_res_units": 2},
        (1, 32, 32),
    ),
    "BasicUNet": ({"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, (1, 32, 32, 32)),
    "BasicUNetPlusPlus": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 2}, (1, 64, 64)),
    "AttentionUnet": (
        {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (16, 32, 64), "strides": (2, 2)},
        (1, 32, 32),
    ),
    "DynUNet": (
        {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "kernel_size": (3, 3, 3), "strides": (1, 2, 2),
         "upsample_kernel_size": (2, 2)},
        (1, 32, 32, 32),
    ),
    "SegResNet": ({"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, (1, 32, 32, 32)),
    "SegResNetVAE": ({"input_image_size": (32, 32), "spatial_dims": 2, "in_channels": 1, "out_channels": 2},
                     (1, 32, 32)),
    "SegResNetDS": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 2}, (1, 64, 64)),
    "VNet": ({"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, (1, 32, 32, 32)),
    "UNETR": ({"in_channels": 1, "out_channels": 2, "img_size": (32, 32), "spatial_dims": 2, "hidden_size": 96,
               "mlp_dim": 192, "num_heads": 4}, (1, 32, 32)),
    "SwinUNETR": ({"in_channels": 1, "out_channels": 2, "feature_size": 24, "spatial_dims": 2}, (1, 64, 64)),
    "HighResNet": ({"spatial_dims": 3, "in_channels": 1, "out_channels": 2}, (1, 16, 16, 16)),
    "DenseNet121": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3}, (1, 64, 64)),
    "resnet18": ({"spatial_dims": 3, "n_input_channels": 1, "num_classes": 3}, (1, 32, 32, 32)),
    "resnet50": ({"spatial_dims": 2, "n_input_channels": 1, "num_classes": 3}, (1, 64, 64)),
    "SEResNet50": ({"spatial_dims": 2, "in_channels": 1, "num_classes": 3}, (1, 64, 64)),
    "SENet154": ({"spatial_dims": 2, "in_channels": 1, "num_classes": 3}, (1, 64, 64)),
    "EfficientNetBN": ({"model_name": "efficientnet-b0", "pretrained": False, "spatial_dims": 2, "in_channels": 1,
                        "num_classes": 3}, (1, 64, 64)),
    "ViT": ({"in_channels": 1, "img_size": (32, 32), "patch_size": (8, 8), "hidden_size": 96, "mlp_dim": 192,
             "num_layers": 3, "num_heads": 4, "classification": True, "num_classes": 3, "spatial_dims": 2},
            (1, 32, 32)),
    "ViTAutoEnc": ({"in_channels": 1, "img_size": (32, 32), "patch_size": (4, 4), "hidden_size": 96, "mlp_dim": 192,
                    "num_layers": 3, "num_heads": 4, "spatial_dims": 2}, (1, 32, 32)),
    "AutoEncoder": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": (16, 32), "strides": (2, 2)},
                    (1, 32, 32)),
    "VarAutoEncoder": ({"spatial_dims": 2, "in_shape": (1, 32, 32), "out_channels": 1, "latent_size": 8,
                        "channels": (16, 32), "strides": (2, 2)}, (1, 32, 32)),
    "Classifier": ({"in_shape": (1, 32, 32), "classes": 3, "channels": (16, 32), "strides": (2, 2)}, (1, 32, 32)),
    "Regressor": ({"in_shape": (1, 32, 32), "out_shape": 1, "channels": (16, 32), "strides": (2, 2)}, (1, 32, 32)),
    "Discriminator": ({"in_shape": (1, 32, 32), "channels": (16, 32), "strides": (2, 2)}, (1, 32, 32)),
    "Critic": ({"in_shape": (1, 32, 32), "channels": (16, 32), "strides": (2, 2)}, (1, 32, 32)),
    "Generator": ({"latent_shape": (16,), "start_shape": (32, 8, 8), "channels": (32, 16), "strides": (2, 2)}, (16,)),
    "FlexibleUNet": ({"in_channels": 3, "out_channels": 2, "backbone": "efficientnet-b0"}, (3, 64, 64)),
    "AHNet": ({"spatial_dims": 2, "out_channels": 2, "psp_block_num": 0}, (1, 64, 64)),
    "MILModel": ({"num_classes": 3, "pretrained": False, "mil_mode": "att"}, (3, 3, 64, 64)),
    "Quicknat": ({"num_classes": 3, "num_channels": 1, "num_filters": 16}, (1, 64, 64)),
    "AutoencoderKL": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "num_res_blocks": (1, 1),
                       "channels": (16, 32), "attention_levels": (False, False), "latent_channels": 4,
                       "norm_num_groups": 8}, (1, 32, 32)),
    "PatchDiscriminator": ({"spatial_dims": 2, "channels": 16, "in_channels": 1}, (1, 64, 64)),
    "VoxelMorphUNet": ({"spatial_dims": 2, "in_channels": 2, "unet_out_channels": 2,
                        "channels": (16, 32, 32, 32, 16, 16),
                        "final_conv_channels": (16,)}, (2, 32, 32)),
    "LocalNet": ({"spatial_dims": 2, "in_channels": 2, "num_channel_initial": 16, "extract_levels": [0, 1, 2],
                  "out_kernel_initializer": "kaiming_uniform", "out_activation": None, "out_channels": 2},
                 (2, 32, 32)),
    "RegUNet": ({"spatial_dims": 2, "in_channels": 2, "num_channel_initial": 16, "depth": 2}, (2, 32, 32)),
}  # fmt: skip


def monai(name: str) -> Made:
    """Medical images, in two and three dimensions."""
    module = importlib.import_module("monai.networks.nets")
    arguments, shape = _MONAI[name]
    return getattr(module, name)(**arguments), torch.randn(2, *shape)


# --- transformers -----------------------------------------------------------------------------------------------------

_SMALL = {"hidden_size": 96, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 192}
_SWIN = {"image_size": 64, "embed_dim": 24, "window_size": 4, "depths": [2, 2, 2], "num_heads": [3, 6, 12]}
_TRANSFORMERS: Mapping[str, tuple[str, dict[str, Any], int]] = {
    "ViT": ("ForImageClassification", _SMALL | {"image_size": 64}, 64),
    "DeiT": ("ForImageClassification", _SMALL | {"image_size": 64}, 64),
    "Beit": ("ForImageClassification", _SMALL | {"image_size": 64}, 64),
    "Data2VecVision": ("ForImageClassification", _SMALL | {"image_size": 64}, 64),
    "ViTMSN": ("ForImageClassification", _SMALL | {"image_size": 64}, 64),
    "ViTMAE": ("Model", _SMALL | {"image_size": 64, "mask_ratio": 0.0}, 64),
    "IJepa": ("ForImageClassification", _SMALL | {"image_size": 64}, 64),
    "Dinov2": ("ForImageClassification", _SMALL | {"image_size": 64, "patch_size": 16}, 64),
    "Dinov2WithRegisters": ("ForImageClassification", _SMALL | {"image_size": 64, "patch_size": 16}, 64),
    "DINOv3ViT": ("Model", _SMALL | {"image_size": 64}, 64),
    "DINOv3ConvNext": ("Model", {}, 64),
    "Swin": ("ForImageClassification", _SWIN, 64),
    "Swinv2": ("ForImageClassification", _SWIN, 64),
    "Swin2SR": ("ForImageSuperResolution", {"image_size": 32, "embed_dim": 24, "depths": [2, 2], "num_heads": [2, 2],
                                           "window_size": 4}, 32),
    "DonutSwin": ("ForImageClassification", _SWIN, 64),
    "ConvNext": ("ForImageClassification", {}, 64),
    "ConvNextV2": ("ForImageClassification", {}, 64),
    "ResNet": ("ForImageClassification", {}, 64),
    "RegNet": ("ForImageClassification", {}, 64),
    "Bit": ("ForImageClassification", {}, 64),
    "MobileNetV1": ("ForImageClassification", {}, 64),
    "MobileNetV2": ("ForImageClassification", {}, 64),
    "MobileViT": ("ForImageClassification", {}, 64),
    "MobileViTV2": ("ForImageClassification", {}, 64),
    "EfficientNet": ("ForImageClassification",
                     {"width_coefficient": 1.0, "depth_coefficient": 1.0, "hidden_dim": 1280}, 64),
    "Segformer": ("ForSemanticSegmentation", {}, 64),
    "PoolFormer": ("ForImageClassification", {}, 64),
    "Levit": ("ForImageClassification", {"image_size": 64}, 64),
    "Cvt": ("ForImageClassification", {"depth": [1, 2, 4]}, 64),
    "Pvt": ("ForImageClassification", {"image_size": 64}, 64),
    "PvtV2": ("ForImageClassification", {"image_size": 64}, 64),
    "FocalNet": ("ForImageClassification", {"image_size": 64, "embed_dim": 24, "depths": [1, 1, 2]}, 64),
    "TextNet": ("ForImageClassification", {}, 64),
    "SwiftFormer": ("ForImageClassification", {}, 64),
    "Hiera": ("ForImageClassification", {"image_size": [64, 64], "embed_dim": 48, "depths": [1, 1, 2, 1]}, 64),
    "HGNetV2": ("ForImageClassification", {}, 64),
    "PPLCNet": ("ForImageClassification", {}, 64),
    "DPT": ("ForSemanticSegmentation", _SMALL | {"image_size": 64, "backbone_out_indices": [0, 1, 2, 3],
                                                 "num_hidden_layers": 4, "neck_hidden_sizes": [24, 48, 96, 96]}, 64),
    "GLPN": ("ForDepthEstimation", {}, 64),
    "UperNet": ("ForSemanticSegmentation", {}, 64),
    "Yolos": ("ForObjectDetection", _SMALL | {"image_size": [64, 64]}, 64),
    "Detr": ("ForObjectDetection", {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None,
                                    "encoder_layers": 2, "decoder_layers": 2}, 64),
    "RTDetr": ("ForObjectDetection", {"num_queries": 20}, 64),
    "SuperPoint": ("ForKeypointDetection", {}, 64),
    "CLIPVision": ("Model", _SMALL | {"image_size": 64}, 64),
    "SiglipVision": ("Model", _SMALL | {"image_size": 64}, 64),
    "VideoMAE": ("ForVideoClassification", _SMALL | {"image_size": 32, "num_frames": 4}, 32),
    "Vivit": ("ForVideoClassification", _SMALL | {"image_size": 32, "num_frames": 4}, 32),
    "Timesformer": ("ForVideoClassification", _SMALL | {"image_size": 32, "num_frames": 4}, 32),
}  # fmt: skip
_VIDEO = {"VideoMAE", "Vivit", "Timesformer"}


def transformers(name: str) -> Made:
    """Vision models from their configurations, small ones."""
    module = importlib.import_module("transformers")
    kind, arguments, size = _TRANSFORMERS[name]
    config = getattr(module, f"{name}Config")(**arguments)
    model = getattr(module, f"{name}{kind}")(config)
    frames = torch.randn(2, 4, 3, size, size) if name in _VIDEO else images(size)
    return model, {"pixel_values": frames}


# --- torchaudio -------------------------------------------------------------------------------------------------------


def torchaudio(name: str) -> Made:
    """Sound."""
    module = importlib.import_module("torchaudio.models")
    made: Mapping[str, Callable[[], Made]] = {
        "conv_tasnet_base": lambda: (module.conv_tasnet_base(), torch.randn(2, 1, 1000)),
        "DeepSpeech": lambda: (module.DeepSpeech(32, n_hidden=64, n_class=10), torch.randn(2, 1, 20, 32)),
        "Wav2Letter": lambda: (module.Wav2Letter(num_classes=10, num_features=16, input_type="mfcc"),
                               torch.randn(2, 16, 100)),
        "WaveRNN": lambda: (module.WaveRNN([2, 2, 5], 32, 20, n_rnn=32, n_fc=32, n_res_block=2, n_freq=16, n_hidden=32,
                                           n_output=32),
                            (torch.randn(2, 1, 20 * (10 - 4)), torch.randn(2, 1, 16, 10))),
        "Conformer": lambda: (module.Conformer(32, 4, 64, 2, 7), (torch.randn(2, 20, 32), torch.tensor([20, 20]))),
        "hubert_base": lambda: (module.hubert_base(), torch.randn(2, 2000)),
        "wav2vec2_base": lambda: (module.wav2vec2_base(), torch.randn(2, 2000)),
        "hdemucs_low": lambda: (module.hdemucs_low(["a", "b"]), torch.randn(2, 2, 16384)),
        "squim_objective_base": lambda: (module.squim_objective_base(), torch.randn(2, 8000)),
        "Tacotron2": lambda: (module.Tacotron2(), (torch.randint(0, 148, (2, 8)), torch.tensor([8, 8]),
                                                   torch.randn(2, 80, 10), torch.tensor([10, 10]))),
        "emformer_rnnt_base": lambda: (module.emformer_rnnt_base(num_symbols=16).transcriber,
                                       (torch.randn(2, 24, 80), torch.tensor([20, 20]))),
    }  # fmt: skip
    return made[name]()


# --- all of them ------------------------------------------------------------------------------------------------------

MAKERS: Mapping[str, Callable[[str], Made]] = {
    "zoo": zoo,
    "torchvision": torchvision,
    "timm": timm,
    "ultralytics": ultralytics,
    "segmentation_models_pytorch": segmentation,
    "monai": monai,
    "transformers": transformers,
    "torchaudio": torchaudio,
}

_TIMM = """
bat_resnext26ts beit_base_patch16_224 beitv2_base_patch16_224 botnet26t_256 cait_xxs24_224 caformer_s18 coat_tiny
coatnet_0_rw_224 convformer_s18 convit_tiny convmixer_768_32 convnext_atto convnextv2_atto crossvit_tiny_240
cs3darknet_s cspdarknet53 cspresnet50 cspresnext50 darknet53 davit_tiny deit_tiny_patch16_224
deit3_small_patch16_224 densenet121 dla34 dm_nfnet_f0 dpn68 eca_halonext26ts eca_nfnet_l0 ecaresnet50t
edgenext_xx_small efficientformer_l1 efficientformerv2_s0 efficientnet_b0 efficientnet_es efficientnetv2_rw_t
efficientvit_b0 efficientvit_m0 ese_vovnet19b_dw eva02_tiny_patch14_224 fastvit_t8 fbnetc_100 fbnetv3_b flexivit_small
focalnet_tiny_srf gcresnet33ts gcvit_xxtiny gernet_s ghostnet_100 ghostnetv2_100 ghostnetv3_100 gmixer_12_224
gmlp_ti16_224 halonet26t hardcorenas_a haloregnetz_b hgnet_tiny hgnetv2_b0 hiera_tiny_224 hrnet_w18_small
inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lambda_resnet26t lcnet_050 legacy_senet154
legacy_seresnet18 legacy_xception levit_128s maxvit_rmlp_pico_rw_256 maxxvit_rmlp_nano_rw_256 mambaout_femto
mixer_s32_224 mixnet_s mnasnet_100 mobilenetv1_100 mobilenetv2_100 mobilenetv3_large_100 mobilenetv4_conv_small
mobilenetv4_hybrid_medium mobileone_s0 mobilevit_xxs mobilevitv2_050 mvitv2_tiny nasnetalarge nest_tiny nextvit_small
nf_resnet26 nfnet_l0 pit_ti_224 pnasnet5large poolformer_s12 poolformerv2_s12 pvt_v2_b0 rdnet_tiny regnetx_002
regnety_002 regnetz_b16 repghostnet_050 repvgg_a0 repvit_m0_9 res2net50_26w_4s resmlp_12_224 resnest14d resnet10t
resnet18 resnet50d resnetaa50 resnetblur18 resnetrs50 resnetv2_50 resnext50_32x4d rexnet_100 sebotnet33ts_256
sehalonet33ts selecsls42 semnasnet_100 senet154 sequencer2d_s seresnet50 shvit_s1 skresnet18 spnasnet_100 starnet_s1
swiftformer_xs swin_tiny_patch4_window7_224 swinv2_tiny_window8_256 swinv2_cr_tiny_224 tf_efficientnet_b0
tf_efficientnet_lite0 tf_mixnet_s tiny_vit_5m_224 tinynet_a tnt_s_legacy_patch16_224 tresnet_m twins_pcpvt_small
twins_svt_small vgg11 vgg16_bn visformer_tiny vit_tiny_patch16_224 vit_small_r26_s32_224 vit_relpos_small_patch16_224
volo_d1_224 vovnet39a wide_resnet50_2 xception41 xcit_nano_12_p16_224 xcit_tiny_12_p8_224
"""
_ULTRALYTICS = """
yolov3-tiny yolov3 yolov5n yolov5n-p6 yolov6n yolov8n yolov8n-cls yolov8n-seg yolov8n-pose yolov8n-obb yolov8n-ghost
yolov8n-p2 yolov8n-p6 yolov8n-rtdetr yolov9t yolov9c yolov10n yolo11n yolo11n-cls yolo11n-seg yolo11n-pose
yolo11n-obb yolo12n yolo12n-seg yolo26n rtdetr-l rtdetr-resnet50
"""
_SEGMENTATION = """
unet/resnet18 unetplusplus/resnet18 manet/resnet18 linknet/resnet18 fpn/resnet18 pspnet/resnet18 deeplabv3/resnet18
deeplabv3plus/resnet18 pan/resnet18 upernet/resnet18 segformer/resnet18 unet/mobilenet_v2 unet/efficientnet-b0
unet/mit_b0 unet/vgg11_bn unet/densenet121 unet/dpn68 unet/inceptionv4 unet/se_resnet50 unet/xception
unet/timm-regnetx_002 unet/mobileone_s0 unet/resnext50_32x4d unet/inceptionresnetv2 unet/tu-convnext_atto
fpn/efficientnet-b0 manet/mobilenet_v2
"""
_AUDIO = """
conv_tasnet_base DeepSpeech Wav2Letter WaveRNN Conformer hubert_base wav2vec2_base hdemucs_low squim_objective_base
Tacotron2 emformer_rnnt_base
"""
_TOO_LARGE = {
    "convnext_small", "convnext_base", "convnext_large", "densenet161", "densenet201", "efficientnet_b2",
    "efficientnet_b3", "efficientnet_b4", "efficientnet_b5", "efficientnet_b6", "efficientnet_b7", "efficientnet_v2_m",
    "efficientnet_v2_l", "mnasnet0_75", "mnasnet1_3", "regnet_x_3_2gf", "regnet_x_8gf", "regnet_x_16gf",
    "regnet_x_32gf", "regnet_y_3_2gf", "regnet_y_8gf", "regnet_y_16gf", "regnet_y_32gf", "regnet_y_128gf", "resnet101",
    "resnet152", "resnext101_32x8d", "resnext101_64x4d", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "swin_s",
    "swin_b", "swin_v2_s", "swin_v2_b", "swin3d_s", "swin3d_b", "vgg13", "vgg13_bn", "vgg19", "vgg19_bn", "vit_b_32",
    "vit_h_14", "vit_l_16", "vit_l_32", "wide_resnet101_2", "fcn_resnet101", "deeplabv3_resnet101", "raft_large",
}  # fmt: skip
"""Of torchvision, those whose family is here in a smaller size."""


def names() -> tuple[str, ...]:
    """Every network, in the order of packages."""
    from torchvision import models

    modules = (models, models.segmentation, models.detection, models.video, models.optical_flow)
    vision = [name for module in modules for name in models.list_models(module=module) if name not in _TOO_LARGE]
    own = ("resnet20", "resnet20b", "resnet56", "vgg16", "mobilenet_v1", "mobilenet_v2", "densenet40")
    listed: Mapping[str, Any] = {
        "zoo": own,
        "torchvision": vision,
        "timm": _TIMM.split(),
        "ultralytics": _ULTRALYTICS.split(),
        "segmentation_models_pytorch": _SEGMENTATION.split(),
        "monai": list(_MONAI),
        "transformers": list(_TRANSFORMERS),
        "torchaudio": _AUDIO.split(),
    }
    return tuple(f"{package}:{name}" for package, found in listed.items() for name in found)


def load(name: str) -> None:
    """Import the package of a network."""
    importlib.import_module(name.partition(":")[0].replace("zoo", "prunesearch"))


def make(name: str) -> Made:
    """The network in eval mode, with random weights, statistics of BatchNorm included, and example inputs."""
    package, _, short = name.partition(":")
    torch.manual_seed(0)
    model, inputs = MAKERS[package](short)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, 0, 0.1)
            assert module.running_var is not None
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    for name, parameter in model.named_parameters():  # what begins at almost nothing would hide what lies behind it
        if (
            parameter.is_floating_point()
            and parameter.numel()
            and not name.endswith("bias")
            and float(parameter.abs().amax()) < 1e-3
        ):
            nn.init.normal_(parameter, 0.0 if parameter.dim() > 1 else 0.5, 0.1)
    return model.eval(), inputs
