#!/usr/bin/env python3
"""Has the peers compute what main.rs compares with: `generate.py tiny FOLDER` makes the small cases that
are kept in `golden/`, `generate.py full FOLDER` those of full size. Same versions, same files.
"""

import argparse

import torch

import encoders
import losses
import networks
import optimisation
import resizing
from cases import Cases

MODULES = {
    "encoders": encoders,
    "networks": networks,
    "losses": losses,
    "optimisation": optimisation,
    "resizing": resizing,
}

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("size", choices=["tiny", "full"])
parser.add_argument("folder")
parser.add_argument("--only", choices=sorted(MODULES), nargs="*", default=sorted(MODULES))
arguments = parser.parse_args()

torch.manual_seed(0)
cases = Cases(arguments.folder)
for name in arguments.only:
    module = MODULES[name]
    (module.add_small if arguments.size == "tiny" else module.add_full)(cases)
cases.write()
