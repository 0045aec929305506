"""The stream of batches does not depend on workers, ranks or restarts; workers end when they should."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ddptrain.config.data import AugmentConfig
from ddptrain.data.detection import DetectionSamples
from ddptrain.data.formats.build import read_dataset
from ddptrain.data.loader import Loader, LoaderError, eval_loader, train_loader
from ddptrain.errors import UserError
from ddptrain.structures import Batch, Sample, SampleKey
