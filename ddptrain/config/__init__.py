"""The config: YAML and overrides in, the frozen `RunConfig` of the task out. A file a section, and a file a task for what is of
that task alone. Imports no torch and no cv2."""

from ddptrain.config.classification import (
    ClassificationDataset,
    ClassificationRun,
    ClassifierConfig,
    LeNetConfig,
    SmallResNetConfig,
)
from ddptrain.config.data import AugmentConfig, DataConfig, DatasetConfig
from ddptrain.config.detection import DetectionDataset, DetectionRun, TorchvisionConfig
from ddptrain.config.detection_loss import LossConfig
from ddptrain.config.interaction import InteractionConfig, InteractionDataset, InteractionRun, PairsConfig
from ddptrain.config.labels import ImageLossConfig
from ddptrain.config.load import load_config, no_line, resolve
from ddptrain.config.optim import EmaConfig, OptimizerConfig, ScheduleConfig
from ddptrain.config.own import OwnRun
from ddptrain.config.run import RunConfig
from ddptrain.config.segmentation import (
    Mask2FormerConfig,
    MaskLossConfig,
    PixelLossConfig,
    SegmentationDataset,
    SegmentationRun,
    SegmenterConfig,
)
from ddptrain.config.slurm import SlurmConfig
from ddptrain.config.train import CheckpointConfig, EvalConfig, MonitorConfig, TrainConfig
from ddptrain.config.yolo import YoloConfig

__all__ = [
    "AugmentConfig",
    "CheckpointConfig",
    "ClassificationDataset",
    "ClassificationRun",
    "ClassifierConfig",
    "DataConfig",
    "DatasetConfig",
    "DetectionDataset",
    "DetectionRun",
    "EmaConfig",
    "EvalConfig",
    "ImageLossConfig",
    "InteractionConfig",
    "InteractionDataset",
    "InteractionRun",
    "LeNetConfig",
    "LossConfig",
    "Mask2FormerConfig",
    "MaskLossConfig",
    "MonitorConfig",
    "OptimizerConfig",
    "OwnRun",
    "PairsConfig",
    "PixelLossConfig",
    "RunConfig",
    "ScheduleConfig",
    "SegmentationDataset",
    "SegmentationRun",
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
