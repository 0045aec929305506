"""The config: YAML and overrides in, a frozen `RunConfig` out. Imports no torch and no cv2."""

from ddptrain.config.data import AugmentConfig, DataConfig, DatasetConfig, PairsConfig
from ddptrain.config.load import load_config, no_line, resolve
from ddptrain.config.loss import ImageLossConfig, LossConfig, MaskLossConfig, PixelLossConfig
from ddptrain.config.model import (
    ClassifierConfig,
    InteractionConfig,
    LeNetConfig,
    Mask2FormerConfig,
    SegmenterConfig,
    SmallResNetConfig,
    TorchvisionConfig,
    YoloConfig,
)
from ddptrain.config.optim import EmaConfig, OptimizerConfig, ScheduleConfig
from ddptrain.config.run import RunConfig
from ddptrain.config.slurm import SlurmConfig
from ddptrain.config.train import CheckpointConfig, EvalConfig, MonitorConfig, TrainConfig

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "ClassifierConfig",
    "DataConfig",
    "DatasetConfig",
    "EmaConfig",
    "EvalConfig",
    "ImageLossConfig",
    "InteractionConfig",
    "LeNetConfig",
    "LossConfig",
    "Mask2FormerConfig",
    "MaskLossConfig",
    "MonitorConfig",
    "OptimizerConfig",
    "PairsConfig",
    "PixelLossConfig",
    "RunConfig",
    "ScheduleConfig",
    "SegmenterConfig",
    "SlurmConfig",
    "SmallResNetConfig",
    "TorchvisionConfig",
    "TrainConfig",
    "YoloConfig",
    "load_config",
    "no_line",
    "resolve",
]
