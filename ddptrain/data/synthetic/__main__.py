"""Write the two datasets of the demo: `python -m ddptrain.data.synthetic FOLDER [--images 160] [--seed 0]`."""

import argparse
from pathlib import Path

from ddptrain.data.synthetic.scenes import write_demo

parser = argparse.ArgumentParser(description="Write the two synthetic demo datasets.")
parser.add_argument("folder", type=Path)
parser.add_argument("--images", type=int, default=160)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
write_demo(args.folder, args.images, args.seed)
print(f"{args.folder}: skyview (VisDrone-DET) and streets (VOC), {args.images} + {args.images // 4} pictures each")
