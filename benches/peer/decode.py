"""What `cargo bench --bench decode` measures against: libjpeg-turbo, OpenCV and numpy, one thread.

Decodes an image and prepares it as a Python program would that feeds the same network: decode, resize
the whole image with OpenCV's antialiasing filter, cut the middle out, normalise, channels first. The
resize and the conversion of colours are in the order that costs less, and what is the same for every
image is computed once.

    decode.py encode FOLDER WIDTH HEIGHT   photo.rgb -> one file a format
    decode.py serve FOLDER RESIZE CROP     a line `FILE READER WIDTH HEIGHT` in; out: seconds of decoding,
                                           seconds of the rest, mean of each channel
"""

import sys
import time
from pathlib import Path

import cv2
import numpy as np
import simplejpeg

cv2.setNumThreads(1)

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
DEVIATION = np.array([0.229, 0.224, 0.225], np.float32)
SCALE = (1 / (255 * DEVIATION)).astype(np.float32)
SHIFT = (-MEAN / DEVIATION).astype(np.float32)


def encode(folder: Path, width: int, height: int) -> None:
    rgb = np.fromfile(folder / "photo.rgb", np.uint8).reshape(height, width, 3)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    grey = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    for name, image in (("colour", bgr), ("grey", grey)):
        # 4:2:0 in colour.
        cv2.imwrite(str(folder / f"{name}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, 90])
        # zlib's usual level, and libpng's usual choice of filters.
        cv2.imwrite(str(folder / f"{name}.png"), image, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    grey.tofile(folder / "Mono8.raw")
    mosaic = np.empty((height, width), np.uint8)
    for line, column, channel in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[line::2, column::2] = rgb[line::2, column::2, channel]
    mosaic.tofile(folder / "BayerRG8.raw")


def read_opencv(data: bytes, width: int, height: int) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def read_turbojpeg(data: bytes, width: int, height: int) -> np.ndarray:
    return simplejpeg.decode_jpeg(data, colorspace="BGR")


def read_mono(data: bytes, width: int, height: int) -> np.ndarray:
    return np.frombuffer(data, np.uint8).reshape(height, width)


def read_bayer(data: bytes, width: int, height: int) -> np.ndarray:
    return cv2.cvtColor(read_mono(data, width, height), cv2.COLOR_BayerRGGB2BGR)


READERS = {
    "opencv": read_opencv,
    "turbojpeg": read_turbojpeg,
    "mono": read_mono,
    "bayer": read_bayer,
}


def prepare(image: np.ndarray, resize: int, crop: int) -> np.ndarray:
    small = cv2.resize(image, (resize, resize), interpolation=cv2.INTER_AREA)
    margin = (resize - crop) // 2
    small = small[margin : margin + crop, margin : margin + crop]
    rgb = cv2.cvtColor(small, cv2.COLOR_GRAY2RGB if small.ndim == 2 else cv2.COLOR_BGR2RGB)
    values = rgb.astype(np.float32)
    values *= SCALE
    values += SHIFT
    return np.ascontiguousarray(values.transpose(2, 0, 1))


def serve(folder: Path, resize: int, crop: int) -> None:
    print("ready", flush=True)
    for line in sys.stdin:
        name, reader, width, height = line.split()
        data = (folder / name).read_bytes()
        start = time.perf_counter()
        image = READERS[reader](data, int(width), int(height))
        decoded = time.perf_counter()
        values = prepare(image, resize, crop)
        end = time.perf_counter()
        means = values.mean((1, 2), dtype=np.float64)
        print(decoded - start, end - decoded, *means, flush=True)


if __name__ == "__main__":
    command, folder, first, second = sys.argv[1:]
    run = {"encode": encode, "serve": serve}[command]
    run(Path(folder), int(first), int(second))
