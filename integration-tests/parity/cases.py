"""Where cases go: a folder with `cases.json` and the tensors beside it.

A case says what is compared (`kind` and its settings, read by main.rs), who the peer is, and how large
the error may be: the largest difference in a tensor, in units of the root mean square of what the peer
has there.
"""

import json
import pathlib

import torch
from safetensors.torch import save_file

from peers import VERSIONS

BOUND = 1e-4


class Cases:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cases = []

    def path(self, file):
        return self.folder / file

    def save(self, file, tensors):
        """Tensors as safetensors, which knows neither views nor shared memory."""
        tensors = {name: torch.as_tensor(tensor).detach().contiguous().clone() for name, tensor in tensors.items()}
        save_file(tensors, self.path(file))
        return file

    def add(self, kind, name, what, peers, tensors, bound=BOUND, **settings):
        peer = ", ".join(VERSIONS[peer] for peer in peers)
        file = self.save(f"{name}.safetensors", tensors)
        self.cases.append(
            {"kind": kind, "what": what, "peer": peer, "bound": bound, "tensors": file, **settings}
        )
        print(f"made {name}", flush=True)

    def write(self):
        text = json.dumps(self.cases, indent=1)
        self.path("cases.json").write_text(text + "\n")
