"""Times the network in ONNX Runtime, OpenVINO and PyTorch, one run at each request.

    model.py FOLDER SIZE BATCH THREADS [RUNTIME ...]

writes `weights.safetensors`, `images.safetensors` (with each runtime's answers) and the exported
networks to FOLDER and says `ready`; then, for each line `RUNTIME PART` on its input (`onnx encoder`,
`openvino-bf16 network`, ...), runs that once and says how many milliseconds it took. Whoever asks can so
take turns with it.
"""

import json
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

import network as peer

RUNTIMES = ["onnx", "openvino-bf16", "openvino", "torch", "torch-bf16"]


def export(module, images, path):
    outputs = ["shallow", "deep"] if isinstance(module, peer.Encoder) else ["anomalies"]
    torch.onnx.export(
        module, (images,), path, input_names=["images"], output_names=outputs, dynamo=True, opset_version=20,
        external_data=False, verbose=False,
    )


def onnx(path, images, threads):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Its threads spin while it works, as they do by default, but not on while the other side has its turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {"images": images.numpy()}
    return lambda: session.run(None, inputs)


def openvino(path, images, threads, precision):
    import openvino

    properties = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }
    request = openvino.Core().compile_model(path, "CPU", properties).create_infer_request()
    inputs = {"images": images.numpy()}
    return lambda: list(request.infer(inputs).values())


def eager(module, images, dtype):
    @torch.inference_mode()
    def run():
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            made = module(images)
        return [value.float().numpy() for value in (made if isinstance(made, tuple) else (made,))]

    return run


def runner(runtime, module, path, images, threads):
    match runtime:
        case "onnx":
            return onnx(path, images, threads)
        case "openvino":
            return openvino(path, images, threads, "f32")
        case "openvino-bf16":
            return openvino(path, images, threads, "bf16")
        case "torch":
            return eager(module, images, torch.float32)
        case "torch-bf16":
            return eager(module, images, torch.bfloat16)
    raise SystemExit(f"model.py: expected one of {RUNTIMES}, found `{runtime}`")


def main(folder, size, batch, threads, *runtimes):
    folder, batch, threads = Path(folder), int(batch), int(threads)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(threads)
    whole = peer.random_network(size)
    images = torch.randn(batch, 3, peer.SIDE, peer.SIDE, generator=torch.Generator().manual_seed(2))
    save_file(peer.bundle_tensors(whole), folder / "weights.safetensors")
    runners, answers = {}, {"images": images}
    for part, module in (("encoder", whole.encoder), ("network", whole)):
        path = folder / f"{size}-{part}-{batch}.onnx"
        if not path.exists():
            export(module, images, path)
        for runtime in runtimes or RUNTIMES[:2]:
            runners[runtime, part] = run = runner(runtime, module, path, images, threads)
            for index, value in enumerate(run()):
                answers[f"{runtime}.{part}.{index}"] = torch.from_numpy(value.copy())
    save_file(answers, folder / "images.safetensors")
    print("ready", json.dumps([" ".join(name) for name in runners]), flush=True)
    for line in sys.stdin:
        run = runners[tuple(line.split())]
        start = time.perf_counter()
        run()
        print((time.perf_counter() - start) * 1e3, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
